//! Layer normalisation of rows (arXiv 1607.06450).
//!
//! With `h = (x - mean) / sqrt(var + eps)`, `g = dy * gamma`:
//!
//! ```text
//! y = h * gamma + beta
//! dx = (g - mean(g) - h * mean(g * h)) / sqrt(var + eps)
//! dgamma = sum over rows of dy * h     dbeta = sum over rows of dy
//! ```
//!
//! The backward pass needs `x` and computes mean and variance again.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::Shape;

use super::linear::sum_rows;
use crate::ops::{MtLoraBackend, SeededDropout};

/// `[width]` as a row that broadcasts over `[rows, width]`.
pub(super) fn row<B: Backend>(vector: FloatTensor<B>) -> FloatTensor<B> {
    let width = vector.shape()[0];
    B::float_reshape(vector, Shape::from([1, width]))
}

/// `h`, and `1 / sqrt(var + eps)` as `[rows, 1]`.
fn normalised<B: Backend>(x: FloatTensor<B>, epsilon: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let mean = B::float_mean_dim(x.clone(), 1);
    let centred = B::float_sub(x, mean);
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let deviation = B::float_sqrt(B::float_add_scalar(variance, Scalar::from(epsilon)));
    let inverse = B::float_recip(deviation);
    (B::float_mul(centred, inverse.clone()), inverse)
}

pub(in crate::ops) fn forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let (h, _) = normalised::<B>(x, epsilon);
    B::float_add(B::float_mul(h, row::<B>(gamma)), row::<B>(beta))
}

pub(in crate::ops) fn backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    dy: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let (h, inverse) = normalised::<B>(x, epsilon);
    let g = B::float_mul(dy, row::<B>(gamma));
    let mean = B::float_mean_dim(g.clone(), 1);
    let along = B::float_mean_dim(B::float_mul(g.clone(), h.clone()), 1);
    let rest = B::float_sub(B::float_sub(g, mean), B::float_mul(h, along));
    B::float_mul(rest, inverse)
}

/// The rows of `dropout(x) + residual` normalised, and this sum.
pub(in crate::ops) fn forward_of_sum<B: MtLoraBackend>(
    [x, residual]: [FloatTensor<B>; 2],
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    dropout: Option<SeededDropout>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let x = match dropout {
        Some(dropout) => B::seeded_dropout(x, dropout),
        None => x,
    };
    let sum = B::float_add(x, residual);
    let y = B::normalize_rows(sum.clone(), gamma, beta, epsilon);
    (y, sum)
}

/// The gradients of `x` and `residual`.
pub(in crate::ops) fn backward_of_sum<B: MtLoraBackend>(
    sum: FloatTensor<B>,
    gamma: FloatTensor<B>,
    dy: FloatTensor<B>,
    dropout: Option<SeededDropout>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dsum = B::normalize_rows_backward(sum, gamma, dy, epsilon);
    let dx = match dropout {
        Some(dropout) => B::seeded_dropout(dsum.clone(), dropout),
        None => dsum.clone(),
    };
    (dx, dsum)
}

/// `dgamma`: `[width]`.
pub(in crate::ops) fn gamma_backward<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let (h, _) = normalised::<B>(x, epsilon);
    sum_rows::<B>(B::float_mul(h, dy))
}
