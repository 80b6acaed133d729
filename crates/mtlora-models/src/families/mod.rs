//! The model families, one folder each.

pub(crate) mod encoder;
pub(crate) mod gpt2;
