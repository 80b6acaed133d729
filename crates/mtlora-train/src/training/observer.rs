//! What the training loop reports, and what an observer can ask of it.

use mtlora_core::State;
use serde::Serialize;

use crate::metrics::labels::Scores;
use crate::training::error::FitError;
use crate::training::snapshot::Snapshot;

/// A report on one step of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// The number of the step, counted from 1.
    pub step: usize,
    /// The total number of steps of the training.
    pub steps: usize,
    /// The number of passes over the data so far, including fractions.
    pub epoch: f64,
    /// The loss of the step before the update: the mean over all of its examples or target tokens. With
    /// [`LossNormalization::Batch`](crate::LossNormalization::Batch) it is the mean of the means of its batches.
    pub loss: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The rank of all adapters together that is left after the step, for adapter methods that have a budget of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank_budget: Option<usize>,
}

/// A point between two steps of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The number of steps so far; 0 before the first step, after the evaluation of the untrained model.
    pub step: usize,
    /// Whether the last step ended an epoch.
    pub epoch_ended: bool,
    /// Whether the last step led to the best score so far.
    pub best: bool,
    /// Whether the training ends here, because no step is left or the patience is exhausted.
    pub ended: bool,
}

/// What an observer requests in a [`Pause`]. The default is to continue without a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Make a [`Snapshot`], and pass it to [`Observer::save`].
    pub save: bool,
    /// Stop the training here, after the snapshot if one is made.
    pub stop: bool,
}

/// Receives reports while a model trains, and decides when snapshots are made.
pub trait Observer {
    /// Called for each step, in order. On devices that compute asynchronously, such as GPUs, the reports arrive some
    /// steps late, so that the steps need not wait for their losses. The reports of all steps so far arrive before an
    /// evaluation, a snapshot or the end of the training.
    ///
    /// # Errors
    /// An error ends the training.
    fn step(&mut self, report: &StepReport) -> Result<(), FitError>;

    /// Called after an evaluation, which follows `step` steps (0: before the first). If the score is the best so far,
    /// `best` has the values of the trained parameters. It is `None` while the adapter method has not settled
    /// ([`TrainingHooks::is_settled`](mtlora_core::TrainingHooks::is_settled)).
    ///
    /// # Errors
    /// An error ends the training.
    fn evaluated(
        &mut self,
        step: usize,
        scores: &Scores,
        best: Option<&State>,
    ) -> Result<(), FitError>;

    /// Called before the first step and after each step, even if the report of that step has not arrived yet.
    ///
    /// # Errors
    /// An error ends the training.
    fn between(&mut self, _pause: &Pause) -> Result<Wish, FitError> {
        Ok(Wish::default())
    }

    /// Receives the snapshot that [`between`](Self::between) requested. It contains everything that is needed to
    /// resume the training from there.
    ///
    /// # Errors
    /// An error ends the training.
    fn save(&mut self, _snapshot: Snapshot) -> Result<(), FitError> {
        Ok(())
    }
}
