//! A run's settings: flags, files of settings, recipes and defaults.

pub(crate) mod recipe;
pub(crate) mod settings_file;
pub(crate) mod task;
