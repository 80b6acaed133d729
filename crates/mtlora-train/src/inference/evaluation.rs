use burn::tensor::Device;
use mtlora_core::read;
use mtlora_models::{ClassifierModelConfig, PackedBatch, SequenceClassifier, TextEncoder, Tokens};

use crate::data::example::{Example, Target};
use crate::metrics::labels::{MetricError, MetricName, Predictions, Scores, score};
use crate::tasks::task::Task;
use crate::training::batches::{BatchSize, by_length};
use crate::training::error::FitError;

/// The most tokens that a batch has when a classification model is evaluated. A longer text is a batch of its own.
pub const EVALUATION_TOKENS: usize = 8192;

/// A tokenised example.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The tokens of the text, or of both texts of a pair.
    pub tokens: Tokens,
    /// The target to predict.
    pub target: Option<Target>,
}

/// Tokenises examples, in their order.
///
/// # Errors
/// [`ModelError::OneOf`](mtlora_models::ModelError::OneOf), with the example's number, when the tokenizer fails.
pub fn encode(text: &TextEncoder, examples: &[Example]) -> Result<Vec<Item>, FitError> {
    let rows: Vec<(&str, Option<&str>)> = examples
        .iter()
        .map(|example| (example.text.as_str(), example.pair.as_deref()))
        .collect();
    let tokens = text.encode_batch(&rows)?;
    let targets = examples.iter().map(|example| example.target);
    Ok(tokens
        .into_iter()
        .zip(targets)
        .map(|(tokens, target)| Item { tokens, target })
        .collect())
}

/// The logits of each item, in the order of the items: `[items][labels]`.
///
/// # Errors
/// When the device fails, or a logit is not finite (the error has the item's index).
pub fn predict(
    model: &SequenceClassifier,
    config: &dyn ClassifierModelConfig,
    items: &[Item],
    device: &Device,
) -> Result<Vec<Vec<f32>>, FitError> {
    let batches = prediction_batches(items);
    let parts = batches
        .iter()
        .map(|batch| predict_batch(model, config, items, batch, device));
    let parts: Vec<Vec<f32>> = parts.collect::<Result<_, _>>()?;
    logits_of(items.len(), config.num_labels(), &batches, parts)
}

/// The batches in which items are predicted, as indices.
pub(crate) fn prediction_batches(items: &[Item]) -> Vec<Vec<usize>> {
    let lengths: Vec<usize> = items.iter().map(|item| item.tokens.len()).collect();
    by_length(&lengths, BatchSize::Tokens(EVALUATION_TOKENS))
}

/// The logits of the items with these indices, one after the other.
pub(crate) fn predict_batch(
    model: &SequenceClassifier,
    config: &dyn ClassifierModelConfig,
    items: &[Item],
    batch: &[usize],
    device: &Device,
) -> Result<Vec<f32>, FitError> {
    let tokens: Vec<&Tokens> = batch.iter().map(|index| &items[*index].tokens).collect();
    let packed = PackedBatch::bucketed(&tokens, config, device)?;
    let values = read(model.forward(&packed));
    values.map_err(|error| FitError::Device(error.to_string()))
}

/// The logits of each of `count` items, each with `labels` logits, from those of the batches.
///
/// # Errors
/// When a logit is not finite.
pub(crate) fn logits_of(
    count: usize,
    labels: usize,
    batches: &[Vec<usize>],
    parts: impl IntoIterator<Item = Vec<f32>>,
) -> Result<Vec<Vec<f32>>, FitError> {
    let mut logits = vec![Vec::new(); count];
    for (batch, values) in batches.iter().zip(parts) {
        for (index, row) in batch.iter().zip(values.chunks(labels)) {
            logits[*index] = row.to_vec();
        }
    }
    let is_finite = |row: &Vec<f32>| row.iter().all(|value| value.is_finite());
    match logits.iter().position(|row| !is_finite(row)) {
        Some(example) => Err(MetricError::NotFinite { example }.into()),
        None => Ok(logits),
    }
}

/// Evaluates a model without gradients (`model.valid()`) on items that all have targets. The scores are the task's
/// metrics and the loss.
///
/// # Errors
/// When an item has no target, or the predictions are not finite.
pub fn evaluate(
    model: &SequenceClassifier,
    config: &dyn ClassifierModelConfig,
    items: &[Item],
    task: &dyn Task,
    device: &Device,
) -> Result<Scores, FitError> {
    // Before the work.
    if items.iter().any(|item| item.target.is_none()) {
        return Err(FitError::NoTargets);
    }
    score_logits(predict(model, config, items, device)?, items, task)
}

/// The scores of the logits of items that all have targets.
///
/// # Errors
/// When an item has no target.
pub(crate) fn score_logits(
    logits: Vec<Vec<f32>>,
    items: &[Item],
    task: &dyn Task,
) -> Result<Scores, FitError> {
    let targets: Option<Vec<Target>> = items.iter().map(|item| item.target).collect();
    let targets = targets.ok_or(FitError::NoTargets)?;
    let mut names = task.metric_names().to_vec();
    if !names.contains(&MetricName::Loss) {
        names.push(MetricName::Loss);
    }
    let predictions = Predictions {
        logits,
        targets,
        positive_class: task.positive_class(),
    };
    Ok(score(&names, &predictions)?)
}
