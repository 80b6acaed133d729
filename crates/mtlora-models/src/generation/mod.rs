//! Decoding: greedy, sampling and beam search, with the names and the semantics of `generate` in Hugging Face
//! transformers 5.
//!
//! Nothing here knows a model or a device: the model is a [`CausalDecoder`], and logits are slices on the host.
//! [`generate`] decodes a batch of prompts of different lengths. Every prompt has its own search, so that what comes
//! out for it does not depend on what else is in the batch.

mod beam;
mod chain;
mod config;
mod decoder;
mod error;
mod folder;
mod processors;
mod sampling;
mod search;
mod softmax;
mod strategy;
mod top;
#[cfg(test)]
mod toy;

pub use config::{EarlyStopping, GenerationConfig, InvalidConfig};
pub use decoder::CausalDecoder;
pub use error::GenerationError;
pub(crate) use folder::ignored_settings;
pub use search::{Progress, generate};
pub use strategy::Generated;
