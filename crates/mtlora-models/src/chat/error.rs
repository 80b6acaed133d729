//! Why a conversation could not be rendered.

use std::path::PathBuf;

use crate::error::ModelError;
use crate::messages::shown;

/// Why a conversation could not be rendered, or why the assistant's turns could not be found in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The files of the model could not be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model without a chat template.
    #[error(
        "{}: the model has no chat template, neither in chat_template.jinja nor in tokenizer_config.json: use a model \
         that was trained on conversations (often named Instruct or Chat), or put the template to learn into \
         chat_template.jinja", .folder.display()
    )]
    NoTemplate {
        /// The model's folder.
        folder: PathBuf,
    },
    /// A template that is not valid, or that failed.
    #[error("the chat template {place}: {message}")]
    Template {
        /// The file, and the line if it is known.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// The template itself refused the conversation, with `raise_exception`.
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    /// A conversation without messages.
    #[error("the conversation has no messages")]
    Empty,
    /// The template renders the beginning of a conversation in another way than within the whole conversation.
    #[error(
        "the model's chat template does not show where the assistant's message {message} begins or ends, because it \
         renders the beginning of the conversation differently on its own: mark what the assistant writes with \
         {{% generation %}} in the template, or learn all tokens (--loss-on all)"
    )]
    NoSpan {
        /// The number of the message, counted from 1.
        message: usize,
    },
    /// A character that is needed to mark the assistant's turns.
    #[error(
        "the conversation contains the character {}, which Unicode reserves for use within programs: remove it",
        shown(&.0.to_string())
    )]
    Reserved(char),
}
