//! The model families, one folder each, and what the rest of the program knows of them.
//!
//! [`registry`] finds a family by the `model_type` of a config.json. Everything outside uses the traits and the types
//! of [`causal`], [`classifier`] and [`masked_lm`], and never a family's own.

pub(crate) mod boxed;
pub(crate) mod cached_decoder;
pub(crate) mod causal;
pub(crate) mod causal_batch;
pub(crate) mod classifier;
pub(crate) mod config_file;
pub(crate) mod config_handle;
pub(crate) mod deberta;
pub(crate) mod distilbert;
pub(crate) mod encoder;
pub(crate) mod family;
pub(crate) mod gpt2;
pub(crate) mod head;
pub(crate) mod llama;
pub(crate) mod masked_lm;
pub(crate) mod operations;
pub(crate) mod recomputed;
pub(crate) mod registry;
pub(crate) mod sizes;
pub(crate) mod text_config;
