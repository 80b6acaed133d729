//! The configuration of a run, and the file that it is kept in.

mod earlier;
pub(crate) mod file;
pub(crate) mod settings;
