//! Root mean square layer normalisation of rows (arXiv 1910.07467).
//!
//! With `i = 1 / sqrt(mean(x²) + eps)`, `h = x i`, `g = dy * gamma`:
//!
//! ```text
//! y = h * gamma
//! dx = (g - h * mean(g * h)) i     dgamma = sum over rows of dy * h
//! ```
//!
//! The backward pass needs `x` and computes `i` again.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar};

use super::linear::sum_rows;
use super::norm::row;

/// `h`, and `i` as `[rows, 1]`.
fn normalised<B: Backend>(x: FloatTensor<B>, epsilon: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let square = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let size = B::float_sqrt(B::float_add_scalar(square, Scalar::from(epsilon)));
    let inverse = B::float_recip(size);
    (B::float_mul(x, inverse.clone()), inverse)
}

pub(in crate::ops) fn forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let (h, _) = normalised::<B>(x, epsilon);
    B::float_mul(h, row::<B>(gamma))
}

pub(in crate::ops) fn backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    dy: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let (h, inverse) = normalised::<B>(x, epsilon);
    let g = B::float_mul(dy, row::<B>(gamma));
    let along = B::float_mean_dim(B::float_mul(g.clone(), h.clone()), 1);
    B::float_mul(B::float_sub(g, B::float_mul(h, along)), inverse)
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
