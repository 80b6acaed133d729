use std::path::{Path, PathBuf};

use mtlora_core::{AttachError, LayerError, StateError};

use crate::error::ModelError;
use crate::messages::{listed, shown};

/// Why an adapter's folder could not be read, or does not fit a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file cannot be read or written, or has unexpected contents.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A factor does not fit the model's weight.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A trained tensor does not fit the model's parameter.
    #[error(transparent)]
    State(#[from] StateError),
    /// An update cannot be computed from its factors, or updates cannot be added up.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The folder has no adapter in it.
    #[error("{} is not an adapter folder: {missing}; {hint}", .folder.display())]
    NotAnAdapter {
        /// The folder.
        folder: PathBuf,
        /// The file that it lacks.
        missing: String,
        /// What to do.
        hint: &'static str,
    },
    /// The adapter uses a feature of PEFT that this crate does not compute.
    #[error("{}: {what} is not supported: {hint}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The method, field or key.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// Configuration and tensors contradict one another.
    #[error("{}: {message}; are adapter_config.json and the tensors of the same adapter?", .path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A regular expression in the configuration is not valid, or takes too long.
    #[error("{}: field `{field}`: the expression {} cannot be used: {message}", .path.display(), shown(.pattern))]
    Pattern {
        /// The configuration file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// The adapter is for modules that the model does not have.
    #[error(
        "{}: the model has no module {}; the adapter was trained on a model of another kind or size",
        .path.display(),
        listed(.names)
    )]
    NoModule {
        /// The tensor file.
        path: PathBuf,
        /// The modules' names.
        names: Vec<String>,
    },
}

impl AdapterError {
    pub(super) fn unsupported(path: &Path, what: impl Into<String>, hint: &'static str) -> Self {
        Self::Unsupported {
            path: path.to_path_buf(),
            what: what.into(),
            hint,
        }
    }

    pub(super) fn contradiction(path: &Path, message: impl Into<String>) -> Self {
        Self::Contradiction {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }
}
