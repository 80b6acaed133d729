//! The configuration of a run, and its file.

mod earlier;
pub(crate) mod file;
pub(crate) mod settings;
