//! A run's folder: its configuration, its model, its checkpoints, its log and its results.

pub(crate) mod checkpoints;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod file_names;
pub(crate) mod folder;
pub(crate) mod log;
pub(crate) mod model;
pub(crate) mod report_to;
pub(crate) mod results;
pub(crate) mod save_options;
pub(crate) mod saver;
pub(crate) mod unfinished;
