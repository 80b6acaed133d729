//! The training loop.
//!
//! The loop is our own: Burn's `Learner` counts in epochs, while the method's schedules, early
//! stopping and checkpoints count in steps. Optimizer, gradients and dashboard are Burn's.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use mtlora_core::{State, load_state, seed, state};
use serde::Serialize;

use crate::batches::shuffled;
use crate::metrics::{MetricName, Scores};
use crate::optimizer::{adamw, clip_gradient_norm};
use crate::options::TrainOptions;
use crate::schedule::WarmupLinear;
use crate::trainer::TrainError;

/// What is learned: the examples, the loss on some of them, and how good a model is.
pub trait Learner {
    /// The model that learns.
    type Model: Module;

    /// The tokens of each training example.
    fn lengths(&self) -> &[usize];

    /// The loss of `model` on the training examples with these indices, on an autodiff `device`.
    ///
    /// # Errors
    /// When the examples cannot be learned from.
    fn loss(
        &self,
        model: &Self::Model,
        batch: &[usize],
        device: &Device,
    ) -> Result<BatchLoss, TrainError>;

    /// The scores of `model`, which is without gradients (`model.valid()`), on a plain `device`.
    ///
    /// # Errors
    /// When there are no scores.
    fn evaluate(&self, model: &Self::Model, device: &Device) -> Result<Scores, TrainError>;

    /// The score by which the best state is chosen.
    fn main_metric(&self) -> MetricName;
}

/// The loss of one batch.
pub struct BatchLoss {
    /// `[1]`, with its graph.
    pub loss: Tensor<1>,
    /// Tokens read for it.
    pub tokens: usize,
}

/// One optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// From 1.
    pub step: usize,
    /// Of how many.
    pub steps: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// The mean loss of the step's batches.
    pub loss: f64,
    /// The rate that the step was made with.
    pub learning_rate: f64,
}

/// Hears what happens while a model trains.
pub trait Observer {
    /// A step was made.
    ///
    /// # Errors
    /// Ends the training.
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError>;

    /// The model was evaluated after `step` steps (0: before the first); with `best`, that state is
    /// the best so far and `trained` are its values.
    ///
    /// # Errors
    /// Ends the training.
    fn evaluated(
        &mut self,
        step: usize,
        scores: &Scores,
        best: Option<&State>,
    ) -> Result<(), TrainError>;
}

/// Makes optimizer steps.
pub(crate) struct Stepper {
    optimizer: ModuleOptimizer,
    max_grad_norm: Option<f64>,
    made: usize,
}

/// What a step was made from.
pub(crate) struct Made {
    /// The mean loss of its batches.
    pub loss: f64,
    /// Tokens read for it.
    pub tokens: usize,
}

impl Stepper {
    pub(crate) fn new(options: &TrainOptions) -> Self {
        Self {
            optimizer: adamw(options.weight_decay),
            max_grad_norm: options.max_grad_norm,
            made: 0,
        }
    }

    /// One step on the mean of the batches' losses, and the model after it.
    pub(crate) fn step<M: Module>(
        &mut self,
        model: M,
        batches: &[Vec<usize>],
        learning_rate: f64,
        loss_of: impl Fn(&M, &[usize]) -> Result<BatchLoss, TrainError>,
    ) -> Result<(M, Made), TrainError> {
        self.made += 1;
        let mut accumulator = GradientsAccumulator::new();
        let (mut sum, mut tokens) = (0.0, 0);
        for batch in batches {
            let BatchLoss { loss, tokens: read } = loss_of(&model, batch)?;
            tokens += read;
            let value = loss.clone().try_into_scalar::<f32>();
            let value = value.map_err(|error| TrainError::Device(error.to_string()))?;
            if !value.is_finite() {
                return Err(TrainError::NotFinite {
                    step: self.made,
                    loss: value,
                });
            }
            sum += f64::from(value) / batches.len() as f64;
            let gradients = loss.div_scalar(batches.len() as f64).backward();
            accumulator.accumulate(&model, GradientsParams::from_grads(gradients, &model));
        }
        let mut gradients = accumulator.grads();
        if let Some(most) = self.max_grad_norm {
            clip_gradient_norm(&model, &mut gradients, most);
        }
        let model = self.optimizer.step(learning_rate, model, gradients);
        Ok((model, Made { loss: sum, tokens }))
    }
}

/// What training came to.
pub struct Trained<M> {
    /// The best state's model, without gradients.
    pub model: M,
    /// The scores before the first step.
    pub before: Scores,
    /// The best state's scores.
    pub best: Scores,
    /// The steps after which that was.
    pub best_step: usize,
    /// The last state's scores.
    pub last: Scores,
    /// Steps made.
    pub steps: usize,
    /// Tokens read in them.
    pub tokens: usize,
    /// Time of the steps, without evaluations.
    pub time: Duration,
}

/// Trains `model`, whose parameters are frozen or not as they should be, on an autodiff `device`,
/// and keeps the state with the best score.
///
/// # Errors
/// When an option is out of its range, the loss stops being finite, or the learner or the observer
/// says so.
pub fn fit<L: Learner>(
    mut model: L::Model,
    learner: &L,
    options: &TrainOptions,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Trained<L::Model>, TrainError> {
    options.validate()?;
    let lengths = learner.lengths();
    if lengths.is_empty() {
        return Err(TrainError::NoExamples);
    }
    seed(device, options.seed);
    let epochs: Vec<Vec<Vec<usize>>> = (0..options.epochs)
        .map(|epoch| shuffled(lengths, options.batch, options.seed, epoch))
        .collect();
    let per_step = options.gradient_accumulation;
    let steps: usize = epochs
        .iter()
        .map(|epoch| epoch.len().div_ceil(per_step))
        .sum();
    let schedule = WarmupLinear::new(options.learning_rate, options.warmup(steps), steps);

    let plain = device.clone().inner();
    let score = |model: &L::Model| learner.evaluate(&model.valid(), &plain);
    let main = learner.main_metric();
    let worth = |scores: &Scores| {
        let value = scores.get(main).unwrap_or(f64::NEG_INFINITY);
        if main.higher_is_better() {
            value
        } else {
            -value
        }
    };

    let before = score(&model)?;
    observer.evaluated(0, &before, None)?;
    let mut stepper = Stepper::new(options);
    let mut best: Option<(Scores, usize, State)> = None;
    let mut last = before.clone();
    let (mut step, mut tokens, mut time, mut waited) = (0, 0, Duration::ZERO, 0);

    'training: for (epoch, batches) in epochs.iter().enumerate() {
        let last_of_epoch = batches.len().div_ceil(per_step);
        for (index, group) in batches.chunks(per_step).enumerate() {
            let start = Instant::now();
            let learning_rate = schedule.rate(step);
            let loss = |model: &L::Model, batch: &[usize]| learner.loss(model, batch, device);
            let (stepped, made) = stepper.step(model, group, learning_rate, loss)?;
            model = stepped;
            tokens += made.tokens;
            step += 1;
            time += start.elapsed();
            observer.step(&StepReport {
                step,
                steps,
                epoch: epoch as f64 + (index + 1) as f64 / last_of_epoch as f64,
                loss: made.loss,
                learning_rate,
            })?;

            let due = match options.eval_steps {
                Some(every) => step % every == 0 || step == steps,
                None => index + 1 == last_of_epoch,
            };
            if due {
                last = score(&model)?;
                let better = best
                    .as_ref()
                    .is_none_or(|(best, ..)| worth(&last) > worth(best));
                if better {
                    let values = state(&model, |_, trains| trains);
                    observer.evaluated(step, &last, Some(&values))?;
                    best = Some((last.clone(), step, values));
                    waited = 0;
                } else {
                    observer.evaluated(step, &last, None)?;
                    waited += 1;
                    if options.patience.is_some_and(|patience| waited >= patience) {
                        break 'training;
                    }
                }
            }
        }
    }

    let (scores, best_step, values) = best.ok_or(TrainError::NoExamples)?;
    Ok(Trained {
        model: load_state(model, values)?.valid(),
        before,
        best: scores,
        best_step,
        last,
        steps: step,
        tokens,
        time,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use burn::nn::{Linear, LinearConfig};

    use super::*;
    use crate::batches::BatchSize;

    /// Learns `y = 2 x`, and says that its loss grows if `worsens`.
    struct Double {
        lengths: Vec<usize>,
        worsens: Option<Cell<f64>>,
    }

    impl Double {
        fn new(worsens: bool) -> Self {
            Self {
                lengths: vec![1; 8],
                worsens: worsens.then(|| Cell::new(0.0)),
            }
        }

        fn error(model: &Linear, numbers: &[usize], device: &Device) -> Tensor<1> {
            let x: Vec<f32> = numbers.iter().map(|number| *number as f32).collect();
            let x = Tensor::<1>::from_floats(x.as_slice(), device).reshape([numbers.len(), 1]);
            (model.forward(x.clone()) - x.mul_scalar(2.0))
                .square()
                .mean()
        }
    }

    impl Learner for Double {
        type Model = Linear;

        fn lengths(&self) -> &[usize] {
            &self.lengths
        }

        fn loss(
            &self,
            model: &Linear,
            batch: &[usize],
            device: &Device,
        ) -> Result<BatchLoss, TrainError> {
            Ok(BatchLoss {
                loss: Self::error(model, batch, device),
                tokens: batch.len(),
            })
        }

        fn evaluate(&self, model: &Linear, device: &Device) -> Result<Scores, TrainError> {
            let mut scores = Scores::default();
            let loss = match &self.worsens {
                Some(last) => {
                    last.set(last.get() + 1.0);
                    last.get()
                }
                None => f64::from(Self::error(model, &[1, 2, 3], device).into_scalar::<f32>()),
            };
            scores.set(MetricName::Loss, loss);
            Ok(scores)
        }

        fn main_metric(&self) -> MetricName {
            MetricName::Loss
        }
    }

    /// The rates, and the steps after which there was a new best.
    #[derive(Default)]
    struct Heard {
        rates: Vec<f64>,
        best: Vec<usize>,
    }

    impl Observer for Heard {
        fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
            self.rates.push(report.learning_rate);
            Ok(())
        }

        fn evaluated(
            &mut self,
            step: usize,
            _: &Scores,
            best: Option<&State>,
        ) -> Result<(), TrainError> {
            self.best.extend(best.map(|_| step));
            Ok(())
        }
    }

    fn learned(learner: &Double, options: &TrainOptions) -> (Trained<Linear>, Heard) {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let model = LinearConfig::new(1, 1).init(&device);
        let mut heard = Heard::default();
        let trained = fit(model, learner, options, &device, &mut heard).unwrap();
        (trained, heard)
    }

    fn options() -> TrainOptions {
        TrainOptions {
            batch: BatchSize::Sequences(4),
            learning_rate: 0.1,
            epochs: 20,
            weight_decay: 0.0,
            warmup_steps: Some(4),
            ..TrainOptions::default()
        }
    }

    #[test]
    fn the_state_with_the_least_loss_is_kept() {
        let learner = Double::new(false);
        let (trained, heard) = learned(&learner, &options());
        let loss = |scores: &Scores| scores.get(MetricName::Loss).unwrap();
        assert!(loss(&trained.best) < loss(&trained.before));
        assert!(loss(&trained.best) <= loss(&trained.last));
        assert_eq!(heard.best.last(), Some(&trained.best_step));
        let device = mtlora_core::devices()[0].device.clone();
        let again = learner.evaluate(&trained.model, &device).unwrap();
        assert_eq!(again, trained.best);
        assert_eq!((trained.steps, trained.tokens), (40, 160));
        assert_eq!(heard.rates[..5], [0.0, 0.025, 0.05, 0.1 * 3.0 / 4.0, 0.1]);
    }

    #[test]
    fn training_stops_when_nothing_gets_better() {
        let options = TrainOptions {
            patience: Some(3),
            ..options()
        };
        let (trained, heard) = learned(&Double::new(true), &options);
        // The first evaluation is the best; three more are waited for, of two steps each.
        assert_eq!((heard.best, trained.best_step), (vec![2], 2));
        assert_eq!(trained.steps, 8);
    }
}
