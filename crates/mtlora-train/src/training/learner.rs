//! What the training loop asks of whatever is learned.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::data::fingerprint::Fingerprint;
use crate::metrics::labels::{MetricName, Scores};
use crate::training::error::FitError;

/// The losses of one batch.
pub struct BatchLoss {
    /// The sum of the losses of its examples or of their tokens, not divided by anything: `[1]`, with its
    /// graph.
    pub sum: Tensor<1>,
    /// Tokens read for it.
    pub tokens: usize,
}

/// What is learned: the examples, the losses on some of them, and how good a model is.
///
/// The sum of the losses and its divisor are separate, since a step may consist of several batches
/// ([`gradient_accumulation`](crate::TrainOptions::gradient_accumulation)): it descends the sum over all of them,
/// divided once by the [`divisor`](Self::divisor) of all of their examples.
pub trait Learner {
    /// The model that learns.
    type Model: Module;

    /// The number of tokens of each training example.
    fn lengths(&self) -> &[usize];

    /// What the sum of the losses of the training examples with these indices is divided by, if they make up
    /// a step: usually the number of losses in the sum, so one for each example, or one for each token that the model
    /// has to predict. It follows from the examples alone, before the model has read them. A step for which it is not
    /// above 0 is an error.
    fn divisor(&self, examples: &[usize]) -> f64;

    /// The losses of `model` on the training examples with these indices, on an autodiff `device`: their sum, which
    /// is not divided by anything.
    ///
    /// # Errors
    /// When the examples cannot be learned from.
    fn loss(
        &self,
        model: &Self::Model,
        batch: &[usize],
        device: &Device,
    ) -> Result<BatchLoss, FitError>;

    /// The scores of `model`, which is without gradients (`model.valid()`), on a plain `device`.
    ///
    /// # Errors
    /// When the model cannot be scored.
    fn evaluate(&self, model: &Self::Model, device: &Device) -> Result<Scores, FitError>;

    /// The score by which the best state is chosen.
    fn main_metric(&self) -> MetricName;

    /// Adds to the fingerprint whatever shows that the examples are the same when a training is resumed: their
    /// lengths, unless the learner adds more.
    fn fingerprint(&self, fingerprint: &mut Fingerprint) {
        fingerprint.numbers(self.lengths().iter().map(|length| *length as u64));
    }
}
