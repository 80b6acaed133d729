//! Adapters: what a method declares, how an adapter starts, where it is attached, and how it becomes plain LoRA.
//!
//! [`methods`] has a file for each method, and is the only place that knows one by name.

pub(crate) mod action;
pub(crate) mod attach;
pub(crate) mod attached;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod factors;
pub(crate) mod fold;
pub(crate) mod form;
pub(crate) mod hooks;
pub(crate) mod init;
pub(crate) mod methods;
pub(crate) mod module;
pub(crate) mod survey;
pub(crate) mod targets;
pub(crate) mod values;
