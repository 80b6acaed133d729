//! The lengths of the rows of an adapted weight, which DoRA (arXiv 2402.09353) divides by. Of each output `o`:
//!
//! ```text
//! ||W_o + s (B A)_o||² = ||W_o||² + B_o · (2 s A W_oᵀ + s² A Aᵀ B_oᵀ)
//! ```
//!
//! The sum `W + s B A` is never made: `A Wᵀ` has as many rows as the rank.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Scalar, TensorMetadata};
use burn::tensor::Shape;

use super::linear::{product, sum_rows, values};
use crate::ops::{MtLoraBackend, Weight};

/// The squares of the lengths: `[out]`. Rounding may leave a very small one below zero.
pub(in crate::ops) fn squared<B: MtLoraBackend>(
    weight: Weight<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let dtype = a.dtype();
    let weight = match weight {
        Weight::Quantized(weight) => values::<B>(weight, dtype.into()),
        Weight::Float(weight) if weight.dtype() == dtype => weight,
        Weight::Float(weight) => B::float_cast(weight, dtype.into()),
    };
    let of_weight = sum_rows::<B>(B::float_mul(weight.clone(), weight.clone()));
    let across = B::float_transpose(product::<B>(a.clone(), weight));
    let own = product::<B>(a.clone(), B::float_transpose(a));
    let own = product::<B>(b.clone(), own);
    let both = B::float_add(
        B::float_mul_scalar(across, Scalar::from(2.0 * scale)),
        B::float_mul_scalar(own, Scalar::from(scale * scale)),
    );
    let of_update = B::float_sum_dim(B::float_mul(b, both), 1);
    let shape = Shape::from([of_update.shape()[0]]);
    B::float_add(of_weight, B::float_reshape(of_update, shape))
}
