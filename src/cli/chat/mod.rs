//! Conversations: what the commands that read, train on or hold them share.

mod decoding;
pub(crate) mod examples;
mod session;
pub(crate) mod show;
pub(crate) mod talk;
mod variables;

pub(crate) use decoding::{ANSWER_TOKENS, decoding};
pub(crate) use variables::VariablesArgs;
