//! Training a classifier.

use burn::module::{Module, ParamGroup};
use burn::tensor::Device;
use mtlora_core::{AttachError, BaseDtypeError, MtLoraConfig, SegmentsError, StateError};
use mtlora_models::{AdapterError, EncoderConfig, ModelError, SequenceClassifier, Strip, Tokens};

use crate::checkpoints::CheckpointError;
use crate::error::DataError;
use crate::evaluation::{Item, evaluate};
use crate::example::{Objective, Target};
use crate::fingerprint::Fingerprint;
use crate::fit::{Learner, Observer, Trained, fit};
use crate::init_from::InitFromError;
use crate::loss::loss_sum;
use crate::metrics::{MetricError, MetricName, Scores};
use crate::optimizer_state::OptimizerStateError;
use crate::options::TrainOptions;
use crate::snapshot::{ResumeError, Snapshot};
use crate::step::BatchLoss;
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
    /// `model` with what the method trains trainable, and the rest frozen. A head is what is named
    /// `classifier`.
    ///
    /// # Errors
    /// When the adapter does not fit the model.
    pub fn prepare<M: Module>(&self, model: M) -> Result<M, AttachError> {
        match self {
            Method::MtLora(config) => config.attach(model),
            Method::Full => Ok(model),
            Method::Head => Ok(model
                .no_grad()
                .set_require_grad_group(ParamGroup::from_predicate("classifier."), true)),
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
    /// The frozen weights' precision.
    #[error(transparent)]
    BaseDtype(#[from] BaseDtypeError),
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
    /// An adapter's folder cannot be read, or does not fit the model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The adapter of another run does not fit.
    #[error(transparent)]
    InitFrom(#[from] InitFromError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A run that was stopped cannot go on.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// What the optimizer remembers cannot be kept or taken up again.
    #[error(transparent)]
    Optimizer(#[from] OptimizerStateError),
    /// A number out of its range.
    #[error("{0}")]
    Option(&'static str),
    /// Examples to train on or to score need a target.
    #[error("examples without a label cannot be trained on or scored; choose another split")]
    NoTargets,
    /// There is nothing to train on.
    #[error("there are no examples to train on")]
    NoExamples,
    /// The losses of a step would be divided by nothing.
    #[error(
        "the examples of step {step} have nothing to learn from: what their losses are divided by is not a number \
         above 0. Leave out examples without targets, or take more into a step"
    )]
    NothingToLearn {
        /// The step, from 1.
        step: usize,
    },
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
    /// The [`Observer`] ended the training, mostly because the user wants it.
    #[error("stopped after step {step}; the best state so far is kept")]
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

/// The examples of a classification or a regression, as [`fit`] learns them.
struct Classification<'a> {
    config: &'a EncoderConfig,
    task: &'a dyn Task,
    items: &'a [Item],
    dev: &'a [Item],
    lengths: Vec<usize>,
}

impl Learner for Classification<'_> {
    type Model = SequenceClassifier;

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn divisor(&self, examples: &[usize]) -> f64 {
        classifier_divisor(examples)
    }

    fn loss(
        &self,
        model: &SequenceClassifier,
        batch: &[usize],
        device: &Device,
    ) -> Result<BatchLoss, TrainError> {
        let objective = self.task.objective();
        classifier_loss(model, self.config, objective, self.items, batch, device)
    }

    fn evaluate(&self, model: &SequenceClassifier, device: &Device) -> Result<Scores, TrainError> {
        evaluate(
            model,
            self.config,
            self.dev,
            self.task.metric_names(),
            device,
        )
    }

    fn main_metric(&self) -> MetricName {
        self.task.main_metric()
    }

    fn fingerprint(&self, fingerprint: &mut Fingerprint) {
        for items in [self.items, self.dev] {
            fingerprint.number(items.len() as u64);
            for Item { tokens, target } in items {
                for ids in [&tokens.ids, &tokens.type_ids] {
                    fingerprint.numbers(ids.iter().map(|id| u64::from(*id)));
                }
                fingerprint.numbers(target.iter().map(|target| match target {
                    Target::Class(class) => *class as u64,
                    Target::Value(value) => u64::from(value.to_bits()),
                }));
            }
        }
    }
}

/// What the sum of the losses on these examples is divided by: each has one.
pub(crate) fn classifier_divisor(examples: &[usize]) -> f64 {
    examples.len() as f64
}

/// The losses on the items with these indices.
pub(crate) fn classifier_loss(
    model: &SequenceClassifier,
    config: &EncoderConfig,
    objective: &Objective,
    items: &[Item],
    batch: &[usize],
    device: &Device,
) -> Result<BatchLoss, TrainError> {
    let items = || batch.iter().map(|index| &items[*index]);
    let sequences: Vec<&Tokens> = items().map(|item| &item.tokens).collect();
    let targets: Option<Vec<Target>> = items().map(|item| item.target).collect();
    let targets = targets.ok_or(TrainError::NoTargets)?;
    let strip = Strip::new(&sequences, config, device)?;
    let sum = loss_sum(model.forward(&strip), &targets, objective);
    Ok(BatchLoss {
        sum: sum.map_err(|error| of_item(error, batch))?,
        tokens: strip.segments.tokens(),
    })
}

/// The error with the index of the item, in place of that in the batch.
fn of_item(error: MetricError, batch: &[usize]) -> MetricError {
    match error {
        MetricError::Example { example, message } => MetricError::Example {
            example: batch.get(example).copied().unwrap_or(example),
            message,
        },
        other => other,
    }
}

/// Trains `model`, which [`Method::prepare`] has made ready on an autodiff `device`, and keeps the
/// state with the best score on `dev`; from the beginning, or from where a [`Snapshot`] was made.
///
/// # Errors
/// When an option is out of its range, a target is missing, the loss stops being finite, the snapshot
/// is of another training, or the observer says so.
#[allow(clippy::too_many_arguments)]
pub fn train(
    model: SequenceClassifier,
    config: &EncoderConfig,
    task: &dyn Task,
    [items, dev]: [&[Item]; 2],
    options: &TrainOptions,
    from: Option<Snapshot>,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Trained<SequenceClassifier>, TrainError> {
    let learner = Classification {
        config,
        task,
        items,
        dev,
        lengths: items.iter().map(|item| item.tokens.len()).collect(),
    };
    fit(model, &learner, options, from, device, observer)
}
