//! The training loop.
//!
//! The loop is our own: Burn's `Learner` counts in epochs, while the method's schedules, early
//! stopping and checkpoints count in steps. Optimizer, gradients and dashboard are Burn's.

use std::time::{Duration, Instant};

use burn::module::{Module, ParamGroup};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use mtlora_core::{AttachError, MtLoraConfig, SegmentsError, State, StateError, load_state, state};
use mtlora_models::{EncoderConfig, ModelError, SequenceClassifier, Strip, Tokens};
use serde::{Deserialize, Serialize};

use crate::batches::{BatchSize, shuffled};
use crate::error::DataError;
use crate::evaluation::{Item, evaluate};
use crate::example::Target;
use crate::loss::loss;
use crate::metrics::{MetricError, Scores};
use crate::optimizer::{adamw, clip_gradient_norm};
use crate::schedule::WarmupLinear;
use crate::task::Task;

/// What trains.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// Adapters, and the modules that their configuration keeps (the head).
    MtLora(MtLoraConfig),
    /// Everything.
    Full,
    /// The classification head only.
    Head,
}

impl Method {
    /// `model` with what the method trains trainable, and the rest frozen.
    ///
    /// # Errors
    /// When the adapter does not fit the model.
    pub fn prepare(&self, model: SequenceClassifier) -> Result<SequenceClassifier, AttachError> {
        match self {
            Method::MtLora(config) => config.attach(model),
            Method::Full => Ok(model),
            Method::Head => Ok(model
                .no_grad()
                .set_require_grad_group(ParamGroup::from_predicate("classifier."), true)),
        }
    }
}

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainOptions {
    /// What goes into a batch.
    pub batch: BatchSize,
    /// Batches whose gradients are averaged into one step.
    pub gradient_accumulation: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Passes over the training data.
    pub epochs: usize,
    /// The part of all steps over which the learning rate climbs.
    pub warmup_ratio: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// The most that the norm of all gradients may be.
    pub max_grad_norm: Option<f64>,
    /// Steps between evaluations; none: after each epoch.
    pub eval_steps: Option<usize>,
    /// Evaluations without a better score after which training stops.
    pub patience: Option<usize>,
    /// Seed of the data's order and of dropout.
    pub seed: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            batch: BatchSize::Sequences(32),
            gradient_accumulation: 1,
            learning_rate: 4e-4,
            epochs: 3,
            warmup_ratio: 0.06,
            weight_decay: 0.1,
            max_grad_norm: None,
            eval_steps: None,
            patience: None,
            seed: 0,
        }
    }
}

impl TrainOptions {
    /// Checks each number's range.
    ///
    /// # Errors
    /// With the name of the first that is out of it.
    pub fn validate(&self) -> Result<(), TrainError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let batch = match self.batch {
            BatchSize::Sequences(count) | BatchSize::Tokens(count) => count,
        };
        let checks = [
            (batch > 0, "batch must be at least 1"),
            (
                self.gradient_accumulation > 0,
                "gradient_accumulation must be at least 1",
            ),
            (
                positive(self.learning_rate),
                "learning_rate must be a positive number",
            ),
            (self.epochs > 0, "epochs must be at least 1"),
            (
                (0.0..=1.0).contains(&self.warmup_ratio),
                "warmup_ratio must lie from 0 to 1",
            ),
            (
                self.weight_decay.is_finite() && self.weight_decay >= 0.0,
                "weight_decay must not be negative",
            ),
            (
                self.max_grad_norm.is_none_or(positive),
                "max_grad_norm must be a positive number",
            ),
            (self.eval_steps != Some(0), "eval_steps must be at least 1"),
            (self.patience != Some(0), "patience must be at least 1"),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, message)) => Err(TrainError::Option(message)),
            None => Ok(()),
        }
    }
}

/// Why training or evaluation ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The adapter does not fit.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model folder or the tokenizer.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The metrics.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A sequence without tokens.
    #[error(transparent)]
    Segments(#[from] SegmentsError),
    /// Stored values and model differ.
    #[error(transparent)]
    State(#[from] StateError),
    /// A number out of its range.
    #[error("{0}")]
    Option(&'static str),
    /// Examples to train on or to score need a target.
    #[error("examples without a label cannot be trained on or scored; choose another split")]
    NoTargets,
    /// There is nothing to train on.
    #[error("there are no examples to train on")]
    NoExamples,
    /// The loss is no number any more.
    #[error(
        "the loss is {loss} at step {step}: training has diverged; try a lower learning rate. \
         The best state so far is kept"
    )]
    NotFinite {
        /// The step, from 1.
        step: usize,
        /// What it is.
        loss: f32,
    },
    /// The user ended the training.
    #[error("ended by the user after step {step}; the best state so far is kept")]
    Interrupted {
        /// The last step made.
        step: usize,
    },
    /// The device could not give its result.
    #[error("the device failed: {0}")]
    Device(String),
    /// A report could not be written.
    #[error("{0}")]
    Report(String),
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

/// What training came to.
pub struct Trained {
    /// The best state's model, without gradients.
    pub model: SequenceClassifier,
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

/// Trains `model`, which [`Method::prepare`] has made ready on an autodiff `device`, and keeps the
/// state with the best score on `dev`.
///
/// # Errors
/// When an option is out of its range, a target is missing, the loss stops being finite, or the
/// observer says so.
pub fn train(
    mut model: SequenceClassifier,
    config: &EncoderConfig,
    task: &dyn Task,
    [items, dev]: [&[Item]; 2],
    options: &TrainOptions,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Trained, TrainError> {
    options.validate()?;
    if items.is_empty() {
        return Err(TrainError::NoExamples);
    }
    device.seed(options.seed);
    let lengths: Vec<usize> = items.iter().map(|item| item.tokens.len()).collect();
    let epochs: Vec<Vec<Vec<usize>>> = (0..options.epochs)
        .map(|epoch| shuffled(&lengths, options.batch, options.seed, epoch))
        .collect();
    let per_step = options.gradient_accumulation;
    let steps: usize = epochs
        .iter()
        .map(|epoch| epoch.len().div_ceil(per_step))
        .sum();
    let warmup = (options.warmup_ratio * steps as f64) as usize;
    let schedule = WarmupLinear::new(options.learning_rate, warmup, steps);

    let plain = device.clone().inner();
    let score = |model: &SequenceClassifier| {
        evaluate(&model.valid(), config, dev, task.metric_names(), &plain)
    };
    let main = task.main_metric();
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
    let mut optimizer = adamw(options.weight_decay);
    let mut best: Option<(Scores, usize, State)> = None;
    let mut last = before.clone();
    let (mut step, mut tokens, mut time, mut waited) = (0, 0, Duration::ZERO, 0);

    'training: for (epoch, batches) in epochs.iter().enumerate() {
        let last_of_epoch = batches.len().div_ceil(per_step);
        for (index, group) in batches.chunks(per_step).enumerate() {
            let start = Instant::now();
            let mut accumulator = GradientsAccumulator::new();
            let mut sum = 0.0;
            for batch in group {
                let sequences: Vec<&Tokens> = batch.iter().map(|i| &items[*i].tokens).collect();
                let targets: Option<Vec<Target>> = batch.iter().map(|i| items[*i].target).collect();
                let targets = targets.ok_or(TrainError::NoTargets)?;
                let strip = Strip::new(&sequences, config, device)?;
                tokens += strip.segments.tokens();
                let loss = loss(model.forward(&strip), &targets, task.objective());
                let value: f32 = loss.clone().into_scalar();
                if !value.is_finite() {
                    return Err(TrainError::NotFinite {
                        step: step + 1,
                        loss: value,
                    });
                }
                sum += f64::from(value) / group.len() as f64;
                let gradients = loss.div_scalar(group.len() as f64).backward();
                accumulator.accumulate(&model, GradientsParams::from_grads(gradients, &model));
            }
            let mut gradients = accumulator.grads();
            if let Some(most) = options.max_grad_norm {
                clip_gradient_norm(&model, &mut gradients, most);
            }
            let learning_rate = schedule.rate(step);
            model = optimizer.step(learning_rate, model, gradients);
            step += 1;
            time += start.elapsed();
            observer.step(&StepReport {
                step,
                steps,
                epoch: epoch as f64 + (index + 1) as f64 / last_of_epoch as f64,
                loss: sum,
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
