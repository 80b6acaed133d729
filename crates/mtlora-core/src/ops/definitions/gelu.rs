//! The Gaussian error linear unit (arXiv 1606.08415), `x Φ(x)`, and its usual approximation.
//!
//! ```text
//! Erf:   y = x Φ(x)                    dx = dy (Φ(x) + x φ(x))
//! Tanh:  y = x σ(2 u)                  dx = dy (σ + 2 x σ (1 - σ) u')
//!        u = sqrt(2 / π) (x + 0.044715 x³)
//! ```
//!
//! The backward pass needs `x` and computes the rest again.

use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar};

use super::activation_dtype::restored;
use crate::ops::{ActivationDtype, MtLoraBackend};

/// The variant of the GELU function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// The exact variant with the error function, as PyTorch's `gelu`; BERT and RoBERTa use it.
    Erf,
    /// The approximation with the hyperbolic tangent, `gelu_new`; GPT-2 uses it.
    Tanh,
}

/// `sqrt(2 / π)`.
pub(in crate::ops) const TANH_SCALE: f64 = FRAC_2_SQRT_PI / SQRT_2;
/// The factor of `x³`.
pub(in crate::ops) const TANH_CUBIC: f64 = 0.044715;

/// `σ(2 u)`.
fn gate<B: Backend>(x: &FloatTensor<B>) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x.clone());
    let inner = B::float_add_scalar(
        B::float_mul_scalar(square, Scalar::from(2.0 * TANH_SCALE * TANH_CUBIC)),
        Scalar::from(2.0 * TANH_SCALE),
    );
    B::sigmoid(B::float_mul(inner, x.clone()))
}

pub(in crate::ops) fn forward<B: Backend>(x: FloatTensor<B>, form: Gelu) -> FloatTensor<B> {
    match form {
        Gelu::Erf => B::gelu(x),
        Gelu::Tanh => B::float_mul(gate::<B>(&x), x),
    }
}

pub(in crate::ops) fn backward<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    form: Gelu,
) -> FloatTensor<B> {
    match form {
        Gelu::Erf => B::gelu_backward(x, dy),
        Gelu::Tanh => {
            let sigma = gate::<B>(&x);
            // σ (1 - σ) = σ - σ²
            let slope = B::float_sub(sigma.clone(), B::float_mul(sigma.clone(), sigma.clone()));
            let square = B::float_mul(x.clone(), x.clone());
            let du = B::float_add_scalar(
                B::float_mul_scalar(square, Scalar::from(6.0 * TANH_SCALE * TANH_CUBIC)),
                Scalar::from(2.0 * TANH_SCALE),
            );
            let change = B::float_mul(B::float_mul(x, slope), du);
            B::float_mul(dy, B::float_add(sigma, change))
        }
    }
}

/// The output, and the input rounded to bfloat16.
pub(in crate::ops) fn forward_and_rounded<B: MtLoraBackend>(
    x: FloatTensor<B>,
    form: Gelu,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let kept = B::rounded(x.clone());
    (B::activate_gelu(x, form, ActivationDtype::Bf16), kept)
}

/// The gradient of an input that was kept in bfloat16.
pub(in crate::ops) fn rounded_backward<B: MtLoraBackend>(
    kept: FloatTensor<B>,
    dy: FloatTensor<B>,
    form: Gelu,
) -> FloatTensor<B> {
    backward::<B>(restored::<B>(kept, &dy), dy, form)
}
