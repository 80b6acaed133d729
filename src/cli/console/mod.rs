//! The console: output, tables, progress, and the signals that stop a run.

#[macro_use]
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod signals;
pub(crate) mod table;
pub(crate) mod terminal;
