//! The interface between the training loop and the objectives that it trains.

use burn::module::Module;
use burn::tensor::{Device, Gradients, Tensor};

use crate::data::fingerprint::Fingerprint;
use crate::metrics::labels::{MetricName, Scores};
use crate::training::error::FitError;

/// The rest of a backward pass with gradient checkpointing: takes the gradients of the loss, computes the layers again, and
/// returns the gradients of their parameters, in parts that are to be added up.
pub type Recompute = Box<dyn FnOnce(&mut Gradients) -> Vec<Gradients>>;

/// The losses of one batch.
pub struct BatchLoss {
    /// The undivided sum of the losses of the batch's examples or tokens, of shape `[1]`, with its autodiff graph.
    pub sum: Tensor<1>,
    /// The number of tokens that the model read.
    pub tokens: usize,
    /// With gradient checkpointing: the part of the backward pass that comes after the loss's.
    pub recompute: Option<Recompute>,
}

impl BatchLoss {
    /// The sum of losses whose graph reaches all parameters.
    pub fn new(sum: Tensor<1>, tokens: usize) -> Self {
        Self {
            sum,
            tokens,
            recompute: None,
        }
    }
}

/// A training objective: the examples, their losses, and the evaluation of a model.
///
/// The sum of the losses and its divisor are separate, because a step may consist of several batches
/// ([`gradient_accumulation`](crate::TrainOptions::gradient_accumulation)). The loss of such a step is the sum over
/// all of its batches, divided once by the [`divisor`](Self::divisor) of all of their examples.
pub trait Learner {
    /// The model that is trained.
    type Model: Module;

    /// The number of tokens of each training example.
    fn lengths(&self) -> &[usize];

    /// The divisor of the summed loss, if a step consists of the training examples with these indices. It is usually
    /// the number of losses in the sum: one for each example, or one for each token that the model has to predict. It
    /// depends only on the examples, not on the model. A step whose divisor is not positive is an error.
    fn divisor(&self, examples: &[usize]) -> f64;

    /// The undivided sum of the losses of `model` on the training examples with these indices, on an autodiff
    /// `device`.
    ///
    /// # Errors
    /// When the loss of the examples cannot be computed.
    fn loss(
        &self,
        model: &Self::Model,
        batch: &[usize],
        device: &Device,
    ) -> Result<BatchLoss, FitError>;

    /// The scores of `model` without gradients (`model.valid()`), on a `device` without autodiff.
    ///
    /// # Errors
    /// When the model cannot be scored.
    fn evaluate(&self, model: &Self::Model, device: &Device) -> Result<Scores, FitError>;

    /// The parts of the evaluation, if several ranks can share it. Without them, rank 0 evaluates alone.
    fn evaluation_parts(&self) -> Option<&dyn EvaluationParts<Self::Model>> {
        None
    }

    /// The metric that decides which state is the best.
    fn main_metric(&self) -> MetricName;

    /// Adds the data that identifies the examples to the fingerprint, so that a resumed training can check that they
    /// are the same. By default these are the lengths.
    fn fingerprint(&self, fingerprint: &mut Fingerprint) {
        fingerprint.numbers(self.lengths().iter().map(|length| *length as u64));
    }
}

/// An evaluation that consists of independent parts, such as batches. All parts together give the scores of
/// [`Learner::evaluate`].
pub trait EvaluationParts<M> {
    /// The number of parts.
    fn parts(&self) -> usize;

    /// What the scores need of one part, counted from 0, on a `device` without autodiff.
    ///
    /// # Errors
    /// When the part cannot be computed.
    fn part(&self, model: &M, part: usize, device: &Device) -> Result<Vec<f64>, FitError>;

    /// The scores that follow from all parts, in their order.
    ///
    /// # Errors
    /// When the model cannot be scored.
    fn scores(&self, parts: Vec<Vec<f64>>) -> Result<Scores, FitError>;
}
