//! Llama-style decoders: Llama, Mistral, Qwen2, Qwen3, SmolLM3 and what is built like them. One model, whose differences the
//! configuration describes by data: training, generation, Hugging Face folders.

mod architecture;
pub(crate) mod config;
mod family;
mod layout;
mod llama_cpp;
mod model;
mod positions;

pub use config::LlamaConfig;
pub(crate) use family::LlamaFamily;
pub use model::{DecoderAttention, DecoderLayer, GatedMlp, LlamaLm, LlamaModel};
