//! Language models for [Burn](burn) that take adapters: encoders (RoBERTa, BERT, DeBERTa, ...) and decoders (GPT-2, Llama, ...).
//!
//! Models are read from Hugging Face folders and written to them, with their tokenizers, and adapters in PEFT's format.
//! A batch is packed: its sequences stand one after another in one tensor `[tokens, hidden]`, without padding. Every
//! linear layer and embedding computes with the adapter that it has, if any. The method itself is in [`mtlora_core`].
//!
//! # Open a model, adapt it, run it, save the adapter
//!
//! ```no_run
//! use std::path::Path;
//!
//! use burn::module::Module;
//! use burn::tensor::Device;
//! use mtlora_core::{Fold, MtLoraConfig, Structure, Targets};
//! use mtlora_models::{ClassifierConfig, PackedBatch, PeftAdapter, SequenceClassifier, TextEncoder};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = Path::new("roberta-base");
//! let device = Device::flex().autodiff();
//! let config = ClassifierConfig::from_folder(folder)?;
//! // `fresh` names the weights that the folder lacks, such as the head's. They start at random, from seed 0.
//! let (model, fresh) = SequenceClassifier::from_folder(folder, &config, 0, &device)?;
//! let model = MtLoraConfig::new(Structure::Shim)
//!     .with_rank(8)
//!     .with_alpha(16.0)
//!     .with_target_modules(Targets::names(["query", "value"]))
//!     .with_modules_to_save(vec!["classifier".to_string()])
//!     .attach(model)?;
//!
//! // Texts of different lengths in one batch; the logits are `[texts, labels]`.
//! let text = TextEncoder::from_folder(folder, &config, 128)?;
//! let tokens = text.encode_batch(&[("A fine film.", None), ("A long way round to nothing at all.", None)])?;
//! let batch = PackedBatch::new(&tokens.iter().collect::<Vec<_>>(), &config, &device)?;
//! let logits = model.forward(&batch);
//! println!("{logits}, with random weights: {fresh:?}");
//!
//! // `adapter_config.json` and `adapter_model.safetensors`, as they are, and as plain LoRA, which PEFT can load.
//! let adapter = PeftAdapter::of(&model, &config, "roberta-base", false)?;
//! adapter.write(Path::new("my-adapter"))?;
//! adapter.fold(Fold::Balanced)?.write(Path::new("my-adapter-for-peft"))?;
//!
//! // Or a whole model with the adapter merged into its weights.
//! model.materialize().save(Path::new("merged"), &config)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Save the adapter of a module of your own
//!
//! An adapter's files name and store weights as the PyTorch model does. A [`CheckpointLayout`] says how that is for your
//! module, and [`PeftAdapter`] then takes the adapter off the module and attaches it again. (If only your own program
//! reads the adapter, you can write the values that [`mtlora_core::state`] returns to a file of any form.)
//! `crates/mtlora-train/tests/toy_family.rs` has such a layout, and saves and loads an adapter with it.
//!
//! # Where to read next
//!
//! | to | read |
//! |---|---|
//! | classify or score texts | [`SequenceClassifier`], [`ClassifierConfig`], [`TextEncoder`], [`PackedBatch`] |
//! | generate text | [`CausalLm`], [`CausalConfig`], [`CausalText`], [`CachedDecoder`], [`generate`] |
//! | render conversations as a model reads them | [`ChatTemplate`], [`Conversation`] |
//! | pre-train an encoder | [`MaskedLm`], [`train_tokenizer`] |
//! | read an adapter and attach it, write one, or inspect and combine adapters | [`PeftAdapter`], [`AdapterConfig`] |
//! | write what a model trains while it trains | [`TrainedFormat`] |
//! | read a checkpoint's tensors | [`Checkpoint`], [`CheckpointLayout`] |
//! | read a model from a GGUF file | [`convert_gguf`] |
//! | write an adapter for vLLM, llama.cpp, Ollama or MLX | [`export_adapter`] |
//! | find out which models there are and which one a folder has, or add a family | [`ModelFamilies`], [`ModelFamily`], [`Attention`] |
//!
//! In the repository's book, `docs/MODEL_FILES.md` says what is read from a model's folder, `docs/task/sharing.md` how adapters
//! and models get to other programs, and `docs/rust/family.md` how a family is added.

mod adapter;
mod chat;
mod error;
mod export;
mod families;
mod files;
mod generation;
mod gguf;
mod layers;
pub mod messages;
mod packed_batch;
#[cfg(test)]
mod testing;
mod text;

// Models by their task: any family's, found by the `model_type` of a folder's `config.json`.
pub use families::cached_decoder::{CachedDecoder, DecodeError};
pub use families::causal::{
    CausalConfig, CausalLm, CausalModel, CausalModelConfig, LlamaCppDescription, LlamaCppLayout,
    Predicted,
};
pub use families::causal_batch::CausalBatch;
pub use families::classifier::{
    ClassifierConfig, ClassifierModel, ClassifierModelConfig, ClassifierOptions, SequenceClassifier,
};
pub use families::head::problem_type::ProblemType;
pub use families::masked_lm::{MaskedLm, MaskedLmConfig, MaskedLmModel, MaskedLmModelConfig};
pub use families::recomputed::RecomputedLayers;
pub use families::registry::{ModelConfig, ModelFamilies};
pub use families::sizes::{ModelSizes, PublishedModel};
pub use families::text_config::TextConfig;
pub use packed_batch::{PackedBatch, bucket_size};

// The families: RoBERTa and BERT, DeBERTa v2 and v3, DistilBERT, GPT-2, and Llama-style decoders.
pub use families::deberta::classifier::{ContextPooler, DebertaClassifier, DebertaHead};
pub use families::deberta::config::DebertaConfig;
pub use families::deberta::model::DebertaEncoder;
pub use families::deberta::positions::RelativeBuckets;
pub use families::distilbert::classifier::{DistilBertClassifier, DistilBertHead};
pub use families::distilbert::config::DistilBertConfig;
pub use families::distilbert::model::DistilBertEncoder;
pub use families::encoder::architecture::Architecture;
pub use families::encoder::classifier::{ClassificationHead, EncoderClassifier};
pub use families::encoder::config::{EncoderConfig, EncoderSizes};
pub use families::encoder::masked_lm::{EncoderMaskedLm, LmHead};
pub use families::encoder::model::Encoder;
pub use families::gpt2::{Block, Gpt2, Gpt2Config, Gpt2Lm, Gpt2Sizes, Mlp, fused_projections};
pub use families::llama::{
    DecoderAttention, DecoderLayer, GatedMlp, LlamaConfig, LlamaLm, LlamaModel,
};

// What another family is made of.
pub use families::boxed::{BoxedModule, Exposes};
pub use families::config_file::ConfigFile;
pub use families::config_handle::ConfigHandle;
pub use families::family::{
    CausalFamily, ClassifierFamily, DefaultTargets, MaskedLmFamily, ModelFamily,
};
pub use families::operations::OperationCounter;
pub use layers::activation::Activation;
pub use layers::attention::{
    Attention, AttentionError, AttentionSpec, PositionScheme, Projections, ScoreBias,
};
pub use layers::attention_context::{AttentionContext, BatchAttention};
pub use layers::layer_norm::LayerNorm;
pub use layers::rms_norm::RmsNorm;
pub use layers::rotary::{Llama3Scaling, Rotary, RotaryScaling, YarnScaling};
pub use layers::weights::{zero_embedding, zero_linear, zero_linear_without_bias};

// Models in GGUF files.
pub use gguf::{ConvertedModel, GgufError, GgufType, GgufValue, convert_gguf, is_gguf, save_gguf};

// Texts and their tokens.
pub use text::causal::{CausalText, read_tokenizer};
pub use text::encoder::{TextEncoder, Tokens};
pub use text::tokenizer::model_max_length;
pub use text::vocabulary::{
    END_OF_TEXT, train_causal_tokenizer, train_tokenizer, write_causal_tokenizer, write_tokenizer,
};

// Conversations.
pub use chat::{ChatError, ChatTemplate, Conversation, LearnedText, LossOn};

// Writing texts.
pub use generation::{
    CausalDecoder, EarlyStopping, Generated, GenerationConfig, GenerationError, InvalidConfig,
    Progress, RewindingDecoder, TextStream, generate,
};

// Adapters in PEFT's format.
pub use adapter::{
    ADAPTER_CONFIG_FILE, ADAPTER_PICKLE_FILE, ADAPTER_WEIGHTS_FILE, AdaLoraFields, AdaptedModule,
    AdapterConfig, AdapterError, CombinedAdapter, PeftAdapter, PeftType, TRAINED_FILE,
    TargetModules, TrainedFormat, adapter_weights,
};

// Adapters for programs that serve models.
pub use export::{ExportError, ExportOptions, Exported, Server, export_adapter};

// Files of models.
pub use error::ModelError;
pub use files::checkpoint::Checkpoint;
pub use files::folder_notes::{FolderNote, folder_notes};
pub use files::names::CONFIG_FILE;
pub use files::save::{
    copy_generation_config, copy_tokenizer_files, write_atomically, write_checkpoint,
};
pub use files::stored_dtype::StoredDtype;
pub use files::weights::CheckpointLayout;
