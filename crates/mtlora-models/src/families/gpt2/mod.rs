//! GPT-2 (Radford et al., 2019): training, generation, Hugging Face folders.

pub(crate) mod config;
mod family;
mod layout;
mod model;

pub use config::{Gpt2Config, Gpt2Sizes};
pub(crate) use family::Gpt2Family;
pub use model::{Block, Gpt2, Gpt2Lm, Mlp, fused_projections};
