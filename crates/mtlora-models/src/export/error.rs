use crate::adapter::AdapterError;
use crate::error::ModelError;
use crate::messages::shown;

/// Why an adapter cannot be written for a program that serves models.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The adapter cannot be folded.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A file cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The program cannot carry a part of the adapter.
    #[error("{program} has no place for {what} {}: {hint}", shown(.name))]
    Refused {
        /// The program, as people call it.
        program: &'static str,
        /// What kind of part it is.
        what: &'static str,
        /// The part's name.
        name: String,
        /// What to do.
        hint: &'static str,
    },
    /// The base model is needed and not known, or of a family for which the program's layout is not known here.
    #[error("{program} needs to know the base model: {message}")]
    Base {
        /// The program, as people call it.
        program: &'static str,
        /// What is missing, and what to do.
        message: String,
    },
}
