//! Conversations: a chat model learns what the assistant says.
//!
//! [`ChatTask`] reads JSONL in the forms that are common ([`Form`]), [`ChatExample`] is one line of it, and [`encode_chats`]
//! turns examples into tokens, of which those of the assistant's turns are learned.

mod encode;
mod error;
mod forms;
mod reader;
mod task;

pub use encode::{ChatEncoder, ChatSequence, EncodedChats, TooLongChat, encode_chats};
pub use error::ChatDataError;
pub use forms::Form;
pub use reader::{ChatContent, ChatExample, read_chats, read_chats_from};
pub use task::{ChatTask, HELD_BACK};
