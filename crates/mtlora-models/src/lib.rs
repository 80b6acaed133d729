//! RoBERTa, BERT and GPT-2 on token strips, read from and written to Hugging Face model folders.
//!
//! ```no_run
//! use std::path::Path;
//! use burn::tensor::Device;
//! use mtlora_models::{EncoderConfig, SequenceClassifier, PackedBatch, TextEncoder};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = Path::new("roberta-base");
//! let device = Device::flex();
//! let config = EncoderConfig::from_folder(folder)?;
//! let (model, fresh) = SequenceClassifier::from_folder(folder, &config, 0, &device)?;
//! let text = TextEncoder::from_folder(folder, &config, 128)?;
//! let tokens = text.encode("No padding anywhere.", None)?;
//! let logits = model.forward(&PackedBatch::new(&[&tokens], &config, &device)?);
//! # let _ = (logits, fresh);
//! # Ok(())
//! # }
//! ```

mod adapter;
mod error;
mod families;
mod files;
mod generation;
mod layers;
mod packed_batch;
#[cfg(test)]
mod testing;
mod text;

pub use adapter::{
    ADAPTER_CONFIG_FILE, ADAPTER_PICKLE_FILE, ADAPTER_WEIGHTS_FILE, AdaptedModule, AdapterConfig,
    AdapterError, CombinedAdapter, PeftAdapter, PeftType, TRAINED_FILE, TargetModules,
    TrainedFormat, adapter_weights,
};
pub use error::ModelError;
pub use families::encoder::classifier::{
    ClassificationHead, ClassifierOptions, SequenceClassifier,
};
pub use families::encoder::config::{Architecture, EncoderConfig, EncoderSizes, ProblemType};
pub use families::encoder::masked_lm::{LmHead, MaskedLm};
pub use families::encoder::model::Encoder;
pub use families::gpt2::{
    Block, CausalBatch, CausalLm, DecodeError, Gpt2, Gpt2Config, Gpt2Decoder, Gpt2Sizes, Mlp,
    fused_projections,
};
pub use files::checkpoint::Checkpoint;
pub use files::folder_notes::{FolderNote, folder_notes};
pub use files::names::CONFIG_FILE;
pub use files::save::{
    copy_generation_config, copy_tokenizer_files, write_atomically, write_checkpoint,
};
pub use files::weights::CheckpointLayout;
pub use generation::{
    CausalDecoder, EarlyStopping, Generated, GenerationConfig, GenerationError, InvalidConfig,
    Progress, generate,
};
pub use layers::activation::Activation;
pub use layers::attention::{
    Attention, AttentionError, AttentionSpec, PositionScheme, Projections, ScoreBias,
};
pub use layers::feed_forward::widen;
pub use layers::layer_norm::LayerNorm;
pub use layers::weights::{zero_embedding, zero_linear};
pub use packed_batch::PackedBatch;
pub use text::causal::{CausalText, read_tokenizer};
pub use text::encoder::{TextEncoder, Tokens};
pub use text::tokenizer::model_max_length;
pub use text::vocabulary::{
    END_OF_TEXT, train_causal_tokenizer, train_tokenizer, write_causal_tokenizer, write_tokenizer,
};
