//! RoBERTa, BERT and GPT-2 on token strips, read from and written to Hugging Face model folders.
//!
//! ```no_run
//! use std::path::Path;
//! use burn::tensor::Device;
//! use mtlora_models::{EncoderConfig, SequenceClassifier, Strip, TextEncoder};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = Path::new("roberta-base");
//! let device = Device::flex();
//! let config = EncoderConfig::from_folder(folder)?;
//! let (model, fresh) = SequenceClassifier::from_folder(folder, &config, 0, &device)?;
//! let text = TextEncoder::from_folder(folder, &config, 128)?;
//! let tokens = text.encode("No padding anywhere.", None)?;
//! let logits = model.forward(&Strip::new(&[&tokens], &config, &device)?);
//! # let _ = (logits, fresh);
//! # Ok(())
//! # }
//! ```

mod adapter;
#[cfg(test)]
mod allocations;
mod checkpoint;
mod classifier;
mod config;
mod encoder;
mod error;
mod fields;
mod folder_notes;
#[cfg(test)]
mod fuzz;
mod generation;
mod gpt2;
mod layer_norm;
mod long_text;
mod masked_lm;
mod pickle;
mod read;
mod save;
mod strip;
mod text;
mod tokenizer;
mod vocabulary;
mod weights;

pub use adapter::{
    ADAPTER_CONFIG_FILE, ADAPTER_PICKLE_FILE, ADAPTER_WEIGHTS_FILE, AdaptedModule, AdapterConfig,
    AdapterError, CombinedAdapter, PeftAdapter, PeftType, TRAINED_FILE, TargetModules,
    TrainedFormat, adapter_weights,
};
pub use checkpoint::Checkpoint;
pub use classifier::{ClassificationHead, ClassifierOptions, SequenceClassifier};
pub use config::{Activation, Architecture, CONFIG_FILE, EncoderConfig, EncoderSizes, ProblemType};
pub use encoder::Encoder;
pub use error::ModelError;
pub use folder_notes::{FolderNote, folder_notes};
pub use generation::{
    CausalDecoder, EarlyStopping, Generated, GenerationConfig, GenerationError, InvalidConfig,
    Progress, generate,
};
pub use gpt2::{
    Block, CausalBatch, CausalLm, CausalText, DecodeError, Gpt2, Gpt2Config, Gpt2Decoder,
    Gpt2Sizes, Mlp, fused_projections, read_tokenizer,
};
pub use layer_norm::LayerNorm;
pub use masked_lm::{LmHead, MaskedLm};
pub use save::{copy_generation_config, copy_tokenizer_files, write_atomically, write_checkpoint};
pub use strip::Strip;
pub use text::{TextEncoder, Tokens};
pub use tokenizer::model_max_length;
pub use vocabulary::{
    END_OF_TEXT, train_causal_tokenizer, train_tokenizer, write_causal_tokenizer, write_tokenizer,
};
pub use weights::Stored;
