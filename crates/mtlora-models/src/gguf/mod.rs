//! Models in GGUF files, as llama.cpp has them: reading a file, and writing what it holds as a Hugging Face folder.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod blocks;
mod convert;
mod decoder;
mod error;
mod file;
mod tokenizer;

pub use convert::{ConvertedModel, convert_gguf};
pub use error::GgufError;
