//! Errors of the training loop and of its learners.

use std::error::Error;

use mtlora_core::{AttachError, HookError, SequenceOffsetsError, StateError};
use mtlora_models::ModelError;

use crate::metrics::labels::MetricError;
use crate::training::optimizer::state::OptimizerStateError;
use crate::training::options::OptionError;
use crate::training::ranks::error::RanksError;
use crate::training::snapshot::ResumeError;

/// The reason why training or evaluating a model failed.
///
/// The training loop knows nothing about run folders and checkpoints. An error of an [`Observer`](crate::Observer),
/// which may know them, is kept whole in [`FitError::Observer`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The adapter does not fit the model.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A text cannot be tokenized, or a sequence does not suit the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A metric cannot be computed.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A sequence has no tokens.
    #[error(transparent)]
    SequenceOffsets(#[from] SequenceOffsetsError),
    /// The stored values do not fit the model.
    #[error(transparent)]
    State(#[from] StateError),
    /// The adapter method's training hooks refuse the model, the schedule or their stored state.
    #[error(transparent)]
    Hooks(#[from] HookError),
    /// The snapshot belongs to another training.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The optimizer's state cannot be saved or restored.
    #[error(transparent)]
    Optimizer(#[from] OptimizerStateError),
    /// An option is out of range.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Some examples have no target.
    #[error("examples without a label cannot be trained on or scored; choose another split")]
    NoTargets,
    /// There are no training examples.
    #[error("there are no examples to train on")]
    NoExamples,
    /// The divisor of a step's loss is not a positive number.
    #[error(
        "the loss of step {step} cannot be computed, because its divisor (the number of its targets) is not positive; \
         leave out examples without targets, or use more examples per step"
    )]
    NothingToLearn {
        /// The number of the step, counted from 1.
        step: usize,
    },
    /// The loss is not finite.
    #[error(
        "the loss is {loss} at step {step}: training has diverged; try a lower learning rate. \
         The best state of the evaluations before it, if there were any, is kept"
    )]
    NotFinite {
        /// The number of the step, counted from 1.
        step: usize,
        /// The loss of the step.
        loss: f32,
    },
    /// The [`Observer`](crate::Observer) ended the training, usually because the user asked for it.
    #[error("stopped after step {step}; the best state so far is kept")]
    Interrupted {
        /// The number of the last completed step.
        step: usize,
    },
    /// The ranks cannot train together, or one of them has failed.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// The device failed: often because it ran out of memory.
    #[error(
        "the device failed: {0}; if it ran out of memory, use smaller batches with more gradient accumulation, shorter \
         sequences, or a base in less precision. The last checkpoint is kept"
    )]
    Device(String),
    /// The [`Observer`](crate::Observer) failed.
    #[error(transparent)]
    Observer(Box<dyn Error + Send + Sync>),
}

impl FitError {
    /// Wraps an error of an observer.
    pub fn observer(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Observer(error.into())
    }
}
