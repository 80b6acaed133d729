//! Watching a run: the terminal dashboard and TensorBoard.

pub(crate) mod dashboard;
pub(crate) mod tensorboard;
