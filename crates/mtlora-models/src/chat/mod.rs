//! Conversations, and the chat templates that turn them into a model's text.
//!
//! A [`ChatTemplate`] renders a [`Conversation`] byte for byte as transformers' `apply_chat_template` does, and finds
//! what the assistant says in the rendered text ([`ChatTemplate::learned`]).

mod conversation;
mod error;
mod folder;
mod python;
mod spans;
mod template;

pub use conversation::Conversation;
pub use error::ChatError;
pub(crate) use folder::template_source;
pub use spans::{LearnedText, LossOn};
pub use template::ChatTemplate;
