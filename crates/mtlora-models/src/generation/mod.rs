//! Decoding by greedy search, sampling or beam search, with the names and the semantics of `generate` in Hugging Face
//! transformers 5. This module is independent of models and devices: the model is a [`CausalDecoder`], and logits are
//! slices on the host. [`generate`] decodes a batch of prompts of different lengths. Every prompt has its own search,
//! so that its result does not depend on the rest of the batch.

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
mod stream;
mod top;
#[cfg(test)]
mod toy;

pub use config::{EarlyStopping, GenerationConfig, InvalidConfig};
pub use decoder::{CausalDecoder, RewindingDecoder};
pub use error::GenerationError;
pub(crate) use folder::ignored_settings;
pub use search::{Progress, generate};
pub use strategy::Generated;
pub use stream::TextStream;
