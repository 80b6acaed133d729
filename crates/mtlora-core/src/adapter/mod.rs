//! The method: what an adapter is, how it starts, where it is attached, and how it becomes plain LoRA.

pub(crate) mod attach;
pub(crate) mod factors;
pub(crate) mod fold;
pub(crate) mod form;
pub(crate) mod init;
pub(crate) mod structure;
pub(crate) mod targets;
pub(crate) mod values;
