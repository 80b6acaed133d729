//! GPT-2 (Radford et al., 2019) on token strips: training, generation, Hugging Face folders.

pub(crate) mod config;
mod decoder;
mod model;

pub use config::{Gpt2Config, Gpt2Sizes};
pub use decoder::{DecodeError, Gpt2Decoder};
pub use model::{Block, CausalBatch, CausalLm, Gpt2, Mlp, fused_projections};
