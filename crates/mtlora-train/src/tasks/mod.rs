//! The tasks: where their examples come from, and how they are scored.

pub mod acceptability;
pub mod chat;
pub(crate) mod class_check;
pub mod data_to_text;
pub mod facts;
pub mod glue;
pub(crate) mod labels;
pub mod registry;
pub(crate) mod synthetic;
pub(crate) mod table;
pub(crate) mod task;
