//! The model and adapter that a command works on.

pub(crate) mod adapted;
pub(crate) mod device;
pub(crate) mod finished;
pub(crate) mod head;
pub(crate) mod known_classes;
pub(crate) mod label_file;
pub(crate) mod notes;
pub(crate) mod plain;
