//! A run's folder: its configuration, its checkpoints, and what it starts from.

pub(crate) mod adapter_settings;
pub(crate) mod checkpoints;
pub(crate) mod file_names;
pub(crate) mod folder;
pub(crate) mod generation;
pub(crate) mod init_from;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod results;
pub(crate) mod saver;
pub(crate) mod stored;
pub(crate) mod unfinished;
