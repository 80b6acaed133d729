//! What can be wrong with a GGUF file.

use std::path::{Path, PathBuf};

use crate::error::ModelError;
use crate::messages::{listed, shown};

/// Why a GGUF file cannot be read or converted.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The operating system's error.
    #[error("{}: cannot read: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Not a GGUF file, or a damaged one.
    #[error("{}: damaged or not a GGUF file: {message}; download it again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A field of the metadata that is missing or of another kind.
    #[error("{}: the field `{field}` {message}", .path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Its name.
        field: String,
        /// What is wrong.
        message: String,
    },
    /// A tensor that the model does not have, or in a type that is not read.
    #[error("{}: the tensor {} {message}", .path.display(), shown(.name))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// What llama.cpp does not have, or what is not written here.
    #[error("cannot write a GGUF file: {what} {message}")]
    Unwritable {
        /// What is not written.
        what: String,
        /// Why, and what to do.
        message: String,
    },
    /// What the file describes cannot be a model, or the folder cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl GgufError {
    pub(super) fn damaged(path: &Path, message: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    pub(super) fn field(path: &Path, field: &str, message: impl Into<String>) -> Self {
        Self::Field {
            path: path.to_path_buf(),
            field: field.to_string(),
            message: message.into(),
        }
    }

    /// A field whose value is not one of those that are known.
    pub(super) fn unknown(path: &Path, field: &str, found: &str, known: &[&str]) -> Self {
        let message = format!(
            "is {}, but only {} are supported; use the original model's folder",
            shown(found),
            listed(known)
        );
        Self::field(path, field, message)
    }

    pub(super) fn tensor(path: &Path, name: &str, message: impl Into<String>) -> Self {
        Self::Tensor {
            path: path.to_path_buf(),
            name: name.to_string(),
            message: message.into(),
        }
    }
}
