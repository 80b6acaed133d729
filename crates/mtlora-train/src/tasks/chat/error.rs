//! Why an example could not be encoded.

use std::path::PathBuf;

use mtlora_models::ChatError;

use crate::data::error::DataError;

/// Why conversations could not be read or encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatDataError {
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The chat template could not be found or read.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// An example that cannot be encoded.
    #[error("{}:{line}: {source}", .path.display())]
    Example {
        /// The file.
        path: PathBuf,
        /// The line of the example.
        line: usize,
        /// What is wrong with it.
        source: Box<ChatError>,
    },
    /// No example has a token that is learned.
    #[error(
        "{}: nothing is left to learn: no example has an assistant's turn within {max_length} tokens, which is a message with the \
         role `assistant` or the `completion` of a `prompt`. See what is learned with `mtlora data show`, raise --max-length, or \
         learn all tokens (--loss-on all)", .path.display()
    )]
    NothingToLearn {
        /// The file.
        path: PathBuf,
        /// The most tokens that an example may have.
        max_length: usize,
    },
}
