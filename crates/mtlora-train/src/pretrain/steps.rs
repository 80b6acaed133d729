//! The optimizer steps of pre-training, for both kinds of language modelling.

use std::time::Instant;

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;

use crate::pretrain::masked_lm::{PretrainError, PretrainProgress};
use crate::training::batches::{BatchSize, shuffled};
use crate::training::error::FitError;
use crate::training::late_loss::{LossQueue, LossReading};
use crate::training::learner::BatchLoss;
use crate::training::normalization::Divisors;
use crate::training::optimizer::adamw::pretraining_adamw;
use crate::training::optimizer::schedule::{LrSchedule, LrScheduler, steps_of_ratio};
use crate::training::options::OptionError;
use crate::training::step::accumulate;

/// An endless iterator over the batches of each step, epoch after epoch, with `sequences` sequences in a batch and
/// `accumulation` batches in a step. The last step of an epoch may have fewer.
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

/// Checks the options that both kinds of pre-training have.
///
/// # Errors
/// If a number is out of range; the error names the first.
pub(crate) fn check_optimization(
    lr: f64,
    warmup_ratio: f64,
    weight_decay: f64,
) -> Result<(), OptionError> {
    let checks = [
        (lr.is_finite() && lr > 0.0, "lr", "be a positive number"),
        (
            (0.0..=1.0).contains(&warmup_ratio),
            "warmup_ratio",
            "be from 0 to 1",
        ),
        (
            weight_decay.is_finite() && weight_decay >= 0.0,
            "weight_decay",
            "not be negative",
        ),
    ];
    match checks.into_iter().find(|(holds, ..)| !holds) {
        Some((_, option, requirement)) => Err(OptionError {
            option,
            requirement,
        }),
        None => Ok(()),
    }
}

impl From<FitError> for PretrainError {
    fn from(error: FitError) -> Self {
        match error {
            FitError::NotFinite { step, .. } => PretrainError::NotFinite { step },
            FitError::Device(reason) => PretrainError::Device(reason),
            FitError::Model(error) => PretrainError::Model(error),
            FitError::SequenceOffsets(error) => PretrainError::SequenceOffsets(error),
            // Pre-training has no other errors.
            other => PretrainError::Device(other.to_string()),
        }
    }
}

/// Makes steps with AdamW and its learning-rate schedule.
pub(crate) struct PretrainSteps<'a> {
    optimizer: ModuleOptimizer,
    schedule: LrSchedule,
    done: usize,
    steps: usize,
    reading: LossReading,
    device: Device,
    /// The numbers of the steps whose losses have not been read yet.
    losses: LossQueue<usize>,
    /// The number of tokens in these steps, and the time when the first of them started.
    unread: Option<(usize, Instant)>,
    progress: &'a mut dyn FnMut(PretrainProgress),
}

impl<'a> PretrainSteps<'a> {
    /// The state before the first of `steps` steps. `progress` is called for each step.
    pub(crate) fn new(
        lr: f64,
        warmup_ratio: f64,
        weight_decay: f64,
        steps: usize,
        device: &Device,
        progress: &'a mut dyn FnMut(PretrainProgress),
    ) -> Self {
        let reading = LossReading::of(device);
        let warmup = steps_of_ratio(warmup_ratio, steps);
        Self {
            optimizer: pretraining_adamw(weight_decay),
            schedule: LrSchedule::new(LrScheduler::Linear, lr, warmup, steps),
            done: 0,
            steps,
            reading,
            device: device.clone(),
            losses: LossQueue::new(reading),
            unread: None,
            progress,
        }
    }

    /// Makes the next step, which was started at `start`. `loss_of` returns the summed loss of one of its `batches`,
    /// and the sum over all of them is divided by `terms`, the number of predicted tokens in the step.
    ///
    /// # Errors
    /// When `loss_of` fails, the device fails, or a loss is not finite.
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
        let (gradients, made) = accumulate(
            self.done,
            &model,
            batches,
            None,
            self.reading,
            &self.device,
            loss_of,
        )?;
        let model = self.optimizer.step(rate, model, gradients);
        let (tokens, began) = self.unread.unwrap_or((0, start));
        self.unread = Some((tokens + made.tokens, began));
        self.losses.push(self.done, made.loss);
        if self.losses.is_due() || self.done == self.steps {
            self.report()?;
        }
        Ok(model)
    }

    /// Reads the losses of the steps that were not reported yet, and reports them.
    fn report(&mut self) -> Result<(), FitError> {
        let Some((tokens, began)) = self.unread.take() else {
            return Ok(());
        };
        let mut tokens_per_second = None;
        let (steps, progress) = (self.steps, &mut self.progress);
        self.losses.read(|step, loss| {
            let tokens_per_second = *tokens_per_second
                .get_or_insert_with(|| tokens as f64 / began.elapsed().as_secs_f64());
            progress(PretrainProgress {
                step,
                steps,
                loss,
                tokens_per_second,
            });
            Ok(())
        })
    }
}
