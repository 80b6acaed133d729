//! Models in GGUF files, as llama.cpp has them: reading a file, writing what it holds as a Hugging Face folder, and
//! writing files.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

pub(crate) mod blocks;
mod convert;
mod decoder;
mod error;
pub(crate) mod file;
pub(crate) mod model;
pub(crate) mod names;
pub(crate) mod rows;
mod save;
mod tokenizer;
mod tokenizer_fields;
pub(crate) mod write;

pub use convert::{ConvertedModel, convert_gguf};
pub use error::GgufError;
pub use model::is_gguf;
pub use save::{GgufType, save_gguf};
pub use write::GgufValue;
