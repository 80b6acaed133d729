//! The model of a run: its base model, its adapter, and how both are loaded.

pub(crate) mod adapter_settings;
pub(crate) mod base;
pub(crate) mod classifier;
pub(crate) mod generator;
pub(crate) mod init_from;
pub(crate) mod init_from_error;
pub(crate) mod kept_base;
pub(crate) mod load;
pub(crate) mod method_name;
