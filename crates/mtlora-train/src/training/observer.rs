//! What the training loop reports, and what an observer can ask of it.

use mtlora_core::State;
use serde::Serialize;

use crate::metrics::labels::Scores;
use crate::training::error::FitError;
use crate::training::snapshot::Snapshot;

/// One optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// The number of the step, from 1.
    pub step: usize,
    /// The number of steps that the training makes.
    pub steps: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// The loss that the step descended: the mean over all of its examples, or over all of its tokens that count, and
    /// with [`LossNormalization::Batch`](crate::LossNormalization::Batch) the mean of its batches' means.
    pub loss: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
}

/// A moment between two steps of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Steps made so far: 0 before the first, after the evaluation of the untrained model.
    pub step: usize,
    /// Whether the last of them ended a pass over the data.
    pub epoch_ended: bool,
    /// Whether the last of them led to the best score so far.
    pub best: bool,
    /// Whether the training ends here anyway.
    pub ended: bool,
}

/// What an observer wants in a [`Pause`]. The default is to continue without keeping anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Make a [`Snapshot`], and pass it to [`Observer::save`].
    pub save: bool,
    /// End the training here, after the snapshot if one is made.
    pub stop: bool,
}

/// Receives reports while a model trains, and decides when snapshots are made.
pub trait Observer {
    /// A step was made. Reports arrive in the order of the steps. On a device that computes on its own, such as a GPU,
    /// they arrive some steps late, so that no step waits for its loss; but those of all steps made so far arrive
    /// before an evaluation, a snapshot, or the end.
    ///
    /// # Errors
    /// Ends the training.
    fn step(&mut self, report: &StepReport) -> Result<(), FitError>;

    /// The model was evaluated after `step` steps (0: before the first). `best` is there if no state has been
    /// better so far, and holds its values of the parameters that train.
    ///
    /// # Errors
    /// Ends the training.
    fn evaluated(
        &mut self,
        step: usize,
        scores: &Scores,
        best: Option<&State>,
    ) -> Result<(), FitError>;

    /// The training is between two steps. This is called before the first step and after each, whether its report has
    /// arrived or not.
    ///
    /// # Errors
    /// Ends the training.
    fn between(&mut self, _pause: &Pause) -> Result<Wish, FitError> {
        Ok(Wish::default())
    }

    /// The snapshot that [`between`](Self::between) has asked for: everything that the training needs to be resumed
    /// from there.
    ///
    /// # Errors
    /// Ends the training.
    fn save(&mut self, _snapshot: Snapshot) -> Result<(), FitError> {
        Ok(())
    }
}
