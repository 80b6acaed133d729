//! The checkpoints of a run's folder.

pub(crate) mod contents;
pub(crate) mod store;
