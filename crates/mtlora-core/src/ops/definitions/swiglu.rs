//! A swish-gated linear unit's element-wise part (arXiv 2002.05202): `y = gate * sigmoid(gate) * up`. With
//! `s = sigmoid(gate)`:
//!
//! ```text
//! dgate = dy * up * s (1 + gate (1 - s))     dup = dy * gate * s
//! ```

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar};

use super::activation_dtype::restored;
use crate::ops::{ActivationDtype, MtLoraBackend};

pub(in crate::ops) fn forward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
) -> FloatTensor<B> {
    let open = B::sigmoid(gate.clone());
    B::float_mul(B::float_mul(gate, open), up)
}

/// The gradients of `gate` and `up`.
pub(in crate::ops) fn backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> [FloatTensor<B>; 2] {
    let open = B::sigmoid(gate.clone());
    let silu = B::float_mul(gate.clone(), open.clone());
    let d_up = B::float_mul(dy.clone(), silu.clone());
    // s + gate s (1 - s)
    let closed = B::float_add_scalar(B::float_neg(open.clone()), Scalar::from(1.0));
    let slope = B::float_add(open, B::float_mul(silu, closed));
    let d_gate = B::float_mul(B::float_mul(dy, up), slope);
    [d_gate, d_up]
}

/// The output, and both inputs rounded to bfloat16.
pub(in crate::ops) fn forward_and_rounded<B: MtLoraBackend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [kept_gate, kept_up] = [&gate, &up].map(|x| B::rounded(x.clone()));
    let y = B::swiglu(gate, up, ActivationDtype::Bf16);
    (y, kept_gate, kept_up)
}

/// The gradients of inputs that were kept in bfloat16.
pub(in crate::ops) fn rounded_backward<B: MtLoraBackend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [gate, up] = [gate, up].map(|kept| restored::<B>(kept, &dy));
    let [d_gate, d_up] = backward::<B>(gate, up, dy);
    (d_gate, d_up)
}
