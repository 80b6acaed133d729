use burn::backend::flex::FlexTensor;
use burn::backend::tensor::IntTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::instructions::vectorized;
use super::reduce::{largest, sum_of};
use super::{contiguous, exclusive, tensor, values};
use crate::ops::vecmath::exp;

/// The column of each row's target: `None` where the target is ignored.
fn places(targets: IntTensor<Flex>) -> Vec<Option<usize>> {
    let data = targets.into_data().convert::<i64>();
    let places = data.try_to_vec::<i64>().unwrap_or_default();
    places
        .into_iter()
        .map(|place| usize::try_from(place).ok())
        .collect()
}

/// The largest value, and the sum of `e^(x - largest)`.
#[inline(always)]
fn largest_and_sum(row: &[f32]) -> (f32, f32) {
    let largest = largest(row);
    (largest, sum_of(row, row, |x, _| exp(x - largest)))
}

/// The loss of a row, from its largest value and the sum of exponentials.
#[inline(always)]
fn row_loss(row: &[f32], target: usize, smoothing: f32, largest: f32, sum: f32) -> f32 {
    let log_sum = largest + sum.ln();
    let nll = log_sum - row[target];
    if smoothing > 0.0 {
        let mean = sum_of(row, row, |x, _| x - largest) / row.len() as f32 + largest;
        (1.0 - smoothing) * nll + smoothing * (log_sum - mean)
    } else {
        nll
    }
}

vectorized! {
    /// The loss of a row.
    fn loss(row: &[f32], target: usize, smoothing: f32) -> f32 {
        let (largest, sum) = largest_and_sum(row);
        row_loss(row, target, smoothing, largest, sum)
    }
}

vectorized! {
    /// The same; the row becomes its gradient.
    fn loss_and_gradient(row: &mut [f32], target: usize, smoothing: f32) -> f32 {
        let (largest, sum) = largest_and_sum(row);
        let loss = row_loss(row, target, smoothing, largest, sum);
        let even = smoothing / row.len() as f32;
        let inverse = 1.0 / sum;
        for x in row.iter_mut() {
            *x = exp(*x - largest) * inverse - even;
        }
        row[target] -= 1.0 - smoothing;
        loss
    }
}

/// [`crate::ops::MtLoraBackend::cross_entropy_rows`].
pub(crate) fn cross_entropy_rows(
    logits: FlexTensor,
    targets: IntTensor<Flex>,
    smoothing: f32,
) -> FlexTensor {
    let (logits, targets) = (contiguous(logits), places(targets));
    assert_eq!(targets.len(), logits.shape()[0], "a target for each row");
    let vocabulary = logits.shape()[1].max(1);
    let losses: Vec<f32> = values(&logits)
        .par_chunks(vocabulary)
        .zip(&targets)
        .map(|(row, target)| target.map_or(0.0, |target| loss(row, target, smoothing)))
        .collect();
    let rows = losses.len();
    tensor(losses, Shape::from([rows]))
}

/// [`crate::ops::MtLoraBackend::cross_entropy_rows_and_gradients`]; the gradient takes the logits'
/// memory.
pub(crate) fn cross_entropy_rows_and_gradients(
    logits: FlexTensor,
    targets: IntTensor<Flex>,
    smoothing: f32,
) -> (FlexTensor, FlexTensor) {
    let (mut logits, targets) = (exclusive(logits), places(targets));
    assert_eq!(targets.len(), logits.shape()[0], "a target for each row");
    let vocabulary = logits.shape()[1].max(1);
    let losses: Vec<f32> = logits
        .storage_mut::<f32>()
        .par_chunks_mut(vocabulary)
        .zip(&targets)
        .map(|(row, target)| match target {
            Some(target) => loss_and_gradient(row, *target, smoothing),
            None => {
                row.fill(0.0);
                0.0
            }
        })
        .collect();
    let rows = losses.len();
    (tensor(losses, Shape::from([rows])), logits)
}
