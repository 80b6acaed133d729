//! The training loop and its parts. Nothing here reads or writes a file.

pub(crate) mod batches;
pub(crate) mod error;
pub(crate) mod fit;
pub(crate) mod hooks;
pub(crate) mod late_loss;
pub(crate) mod learner;
pub(crate) mod learners;
pub(crate) mod loss;
pub(crate) mod method;
pub(crate) mod normalization;
pub(crate) mod observer;
pub(crate) mod optimizer;
pub(crate) mod options;
pub(crate) mod plan;
pub(crate) mod ranks;
pub(crate) mod snapshot;
pub(crate) mod step;
