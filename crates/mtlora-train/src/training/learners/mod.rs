//! What the training loop trains: one learner for each kind of objective.

pub(crate) mod causal;
pub(crate) mod classification;
