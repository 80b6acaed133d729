//! The Gaussian error linear unit (arXiv 1606.08415), `x Φ(x)`, and its usual approximation.
//!
//! ```text
//! Erf:   y = x Φ(x)                    dx = dy (Φ(x) + x φ(x))
//! Tanh:  y = x σ(2 u)                  dx = dy (σ + 2 x σ (1 - σ) u')
//!        u = sqrt(2 / π) (x + 0.044715 x³)
//! ```
//!
//! Only `x` is saved; the backward pass makes the rest anew.

use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Scalar};

use super::{ActivationDtype, MtLoraBackend};

/// Which function `gelu` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// With the error function: PyTorch's `gelu`, BERT's and RoBERTa's.
    Erf,
    /// With the hyperbolic tangent: `gelu_new`, GPT-2's.
    Tanh,
}

/// `sqrt(2 / π)`.
pub(super) const TANH_SCALE: f64 = FRAC_2_SQRT_PI / SQRT_2;
/// The factor of `x³`.
pub(super) const TANH_CUBIC: f64 = 0.044715;

/// `σ(2 u)`.
fn gate<B: Backend>(x: &FloatTensor<B>) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x.clone());
    let inner = B::float_add_scalar(
        B::float_mul_scalar(square, Scalar::from(2.0 * TANH_SCALE * TANH_CUBIC)),
        Scalar::from(2.0 * TANH_SCALE),
    );
    B::sigmoid(B::float_mul(inner, x.clone()))
}

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, form: Gelu) -> FloatTensor<B> {
    match form {
        Gelu::Erf => B::gelu(x),
        Gelu::Tanh => B::float_mul(gate::<B>(&x), x),
    }
}

pub(super) fn backward<B: Backend>(
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

#[derive(Debug)]
struct GeluStep;

/// Parent: `x`.
impl<B: Backend + MtLoraBackend> Backward<B, 1> for GeluStep {
    type State = (FloatTensor<B>, Gelu);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, form) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::activate_gelu_backward(x, dy, form));
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: Backend + MtLoraBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    form: Gelu,
    saved: ActivationDtype,
) -> FloatTensor<Autodiff<B, C>> {
    let (x, node) = x.into_parts();
    match GeluStep.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let kept = saved.of::<B>(&x);
            let y = B::activate_gelu(x, form, saved);
            prep.finish((kept, form), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::activate_gelu(x, form, saved)),
    }
}
