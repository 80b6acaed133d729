//! The steps of a training, which follow from its options.

use crate::training::batches::shuffled;
use crate::training::optimizer::schedule::LrSchedule;
use crate::training::options::TrainOptions;

/// The steps of a training. Only the batches of the current epoch are in memory.
pub(crate) struct Plan<'a> {
    lengths: &'a [usize],
    options: &'a TrainOptions,
    /// The same in every epoch, because shuffling does not change the number of batches.
    steps_per_epoch: usize,
    steps: usize,
    schedule: LrSchedule,
    epoch: usize,
    /// The batches of `epoch`.
    batches: Vec<Vec<usize>>,
}

/// One step of the optimizer.
pub(crate) struct PlannedStep<'a> {
    /// The batches whose gradients are accumulated, as indices of the examples. The last step of an epoch may have
    /// fewer.
    pub(crate) batches: &'a [Vec<usize>],
    pub(crate) learning_rate: f64,
    /// The number of epochs that are complete after the step, including fractions.
    pub(crate) epoch: f64,
    /// Whether it is the last step of an epoch, or of the training.
    pub(crate) ends_epoch: bool,
}

impl<'a> Plan<'a> {
    /// The plan for examples with these lengths in tokens.
    pub(crate) fn new(lengths: &'a [usize], options: &'a TrainOptions) -> Self {
        let batches = shuffled(lengths, options.batch, options.seed, 0);
        let steps_per_epoch = batches.len().div_ceil(options.gradient_accumulation);
        let steps = match options.max_steps {
            // Without examples, there is no step.
            Some(steps) => steps * usize::from(steps_per_epoch > 0),
            None => options.epochs.saturating_mul(steps_per_epoch),
        };
        Self {
            lengths,
            options,
            steps_per_epoch,
            steps,
            schedule: options.schedule(steps),
            epoch: 0,
            batches,
        }
    }

    /// The number of steps.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// The step with this number, counted from 0.
    pub(crate) fn step(&mut self, step: usize) -> PlannedStep<'_> {
        let (epoch, index) = (step / self.steps_per_epoch, step % self.steps_per_epoch);
        if self.epoch != epoch {
            self.batches = shuffled(self.lengths, self.options.batch, self.options.seed, epoch);
            self.epoch = epoch;
        }
        let first = index * self.options.gradient_accumulation;
        let end = first
            .saturating_add(self.options.gradient_accumulation)
            .min(self.batches.len());
        PlannedStep {
            batches: &self.batches[first..end],
            learning_rate: self.schedule.rate(step),
            epoch: epoch as f64 + (index + 1) as f64 / self.steps_per_epoch as f64,
            ends_epoch: index + 1 == self.steps_per_epoch || step + 1 == self.steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::batches::BatchSize;
    use proptest::prelude::*;

    proptest! {
        /// The steps are taken from the first one or from any other, as after resuming.
        #[test]
        fn each_epoch_is_all_examples_once(
            lengths in prop::collection::vec(1usize..50, 1..80),
            amount in 1usize..100, tokens: bool, seed: u64, epochs in 1usize..4, accumulation in 1usize..5, from: prop::sample::Index,
        ) {
            let options = TrainOptions {
                batch: if tokens { BatchSize::Tokens(amount) } else { BatchSize::Sequences(amount) },
                gradient_accumulation: accumulation,
                epochs,
                seed,
                ..TrainOptions::default()
            };
            let mut plan = Plan::new(&lengths, &options);
            let mut first = Vec::new();
            for epoch in 0..epochs {
                let mut seen = Vec::new();
                let steps = plan.steps() / epochs;
                for index in 0..steps {
                    let step = plan.step(epoch * steps + index);
                    prop_assert!((1..=accumulation).contains(&step.batches.len()));
                    prop_assert_eq!(step.ends_epoch, index + 1 == steps);
                    prop_assert_eq!(step.epoch == (epoch + 1) as f64, step.ends_epoch);
                    seen.extend(step.batches.concat());
                    first.push(step.batches.to_vec());
                }
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            }
            // A number of steps cuts the last epoch short, or goes on with others.
            for steps in [1, first.len() - 1, first.len() + 1] {
                let options = TrainOptions { max_steps: Some(steps), ..options.clone() };
                let mut plan = Plan::new(&lengths, &options);
                prop_assert_eq!(plan.steps(), steps);
                for at in (0..steps).filter(|at| *at < first.len()) {
                    let step = plan.step(at);
                    prop_assert_eq!(step.batches, &first[at]);
                    prop_assert!(step.ends_epoch || at + 1 < steps);
                }
            }
            let from = from.index(first.len());
            let mut resumed = Plan::new(&lengths, &options);
            prop_assert_eq!(resumed.step(from).batches, &first[from]);
        }
    }
}
