//! The optimizer's steps of pre-training, whatever the model has to name.

use std::time::Instant;

use burn::module::Module;
use burn::optim::ModuleOptimizer;

use crate::pretrain::masked_lm::{PretrainError, PretrainProgress};
use crate::training::batches::{BatchSize, shuffled};
use crate::training::normalization::Divisors;
use crate::training::optimizer::pretraining_adamw;
use crate::training::schedule::WarmupLinear;
use crate::training::step::{BatchLoss, StepError, accumulate};

/// The batches of each step, without end: epoch after epoch, so many sequences to a batch and so many batches to a
/// step. An epoch's last step has what is left.
pub(crate) fn endless<'a>(
    lengths: &'a [usize],
    sequences: usize,
    accumulation: usize,
    seed: u64,
) -> impl Iterator<Item = Vec<Vec<usize>>> + 'a {
    let size = BatchSize::Sequences(sequences);
    (0..).flat_map(move |epoch| {
        let batches = shuffled(lengths, size, seed, epoch);
        let steps = batches.chunks(accumulation.max(1)).map(<[_]>::to_vec);
        steps.collect::<Vec<_>>()
    })
}

impl From<StepError> for PretrainError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::NotFinite { step, .. } => PretrainError::NotFinite { step },
            StepError::Device(reason) => PretrainError::Device(reason),
        }
    }
}

/// AdamW and its learning rate, step by step.
pub(crate) struct PretrainSteps<'a> {
    optimizer: ModuleOptimizer,
    schedule: WarmupLinear,
    done: usize,
    steps: usize,
    progress: &'a mut dyn FnMut(PretrainProgress),
}

impl<'a> PretrainSteps<'a> {
    /// Before the first of `steps`. `progress` hears of each.
    pub(crate) fn new(
        lr: f64,
        warmup_ratio: f64,
        weight_decay: f64,
        steps: usize,
        progress: &'a mut dyn FnMut(PretrainProgress),
    ) -> Self {
        Self {
            optimizer: pretraining_adamw(weight_decay),
            schedule: WarmupLinear::with_ratio(lr, warmup_ratio, steps),
            done: 0,
            steps,
            progress,
        }
    }

    /// The next step, begun at `start`: down the losses of its `batches`, whose sums `loss_of` makes, divided by the
    /// number of the step's `terms`, the tokens that are to be named in it.
    ///
    /// # Errors
    /// Those of `loss_of`; when the device fails or a loss is not finite.
    pub(crate) fn take<M: Module, B>(
        &mut self,
        model: M,
        batches: Vec<B>,
        terms: usize,
        start: Instant,
        loss_of: impl Fn(&M, B) -> Result<BatchLoss, PretrainError>,
    ) -> Result<M, PretrainError> {
        let rate = self.schedule.rate(self.done);
        self.done += 1;
        let divisors = Divisors::step(terms as f64);
        let batches = batches.into_iter().map(|batch| (batch, divisors));
        let (gradients, made) = accumulate(self.done, &model, batches, None, loss_of)?;
        let model = self.optimizer.step(rate, model, gradients);
        (self.progress)(PretrainProgress {
            step: self.done,
            steps: self.steps,
            loss: made.loss,
            tokens_per_second: made.tokens as f64 / start.elapsed().as_secs_f64(),
        });
        Ok(model)
    }
}
