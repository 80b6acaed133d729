//! How a low-rank update acts, on the dense weight and on activations.

use burn::backend::Dispatch;
use burn::tensor::{DType, FloatDType, Int, Tensor};

use crate::adapter::factors::Factors;
use crate::ops::{MtLoraBackend, Optional};
use crate::packed;

/// The values of one adapter's update `scale * B T A`, ready to be multiplied.
#[derive(Clone, Debug)]
pub struct Update {
    /// `A`: `[total_rank, in]`.
    pub a: Tensor<2>,
    /// `B` as it acts on all of `T A x`: `[out, total_rank]`.
    pub up: Tensor<2>,
    /// `T`: `[total_rank, total_rank]`, or `None` where it is the identity.
    pub transform: Option<Tensor<2>>,
    /// The factors beyond `A` and `B`.
    pub further: Factors<Tensor<2>>,
    /// The update's factor.
    pub scale: f64,
}

/// What an adapted linear layer computes its output from.
#[derive(Clone, Debug)]
pub struct LinearInput {
    /// The layer's input: `[tokens, in]`.
    pub x: Tensor<2>,
    /// The adapter's input where dropout acts on it: `[tokens, in]`.
    pub dropped: Option<Tensor<2>>,
    /// The frozen weight: `[in, out]`.
    pub weight: Tensor<2>,
    /// The layer's bias: `[out]`.
    pub bias: Option<Tensor<1>>,
}

/// A weight as a matrix, `[out, in]`, in floats of at least 32 bits. Burn keeps linear and embedding weights as
/// `[in, out]`, and convolutions as `[out, in, k...]`.
pub(crate) fn matrix<const D: usize>(weight: Tensor<D>) -> Tensor<2> {
    let weight = match weight.dtype() {
        DType::QFloat(_) => packed::unquantized(weight),
        DType::BF16 | DType::F16 => weight.cast(FloatDType::F32),
        _ => weight,
    };
    let shape = weight.shape();
    if D == 2 {
        weight.reshape([shape[0], shape[1]]).transpose()
    } else {
        let columns = shape.num_elements() / shape[0].max(1);
        weight.reshape([shape[0], columns])
    }
}

/// The dense update `scale * B T A`: `[out, in]`.
pub(crate) fn delta(update: &Update) -> Tensor<2> {
    let up = update.up.clone();
    let up = match &update.transform {
        Some(t) => up.matmul(t.clone()),
        None => up,
    };
    up.matmul(update.a.clone()).mul_scalar(update.scale)
}

/// `x W + b + scale ((x Aᵀ) Tᵀ) Bᵀ`: `[tokens, out]`. The dense update is never made, and the frozen weight gets no
/// gradient.
pub(crate) fn linear(update: Update, input: LinearInput) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as MtLoraBackend>::adapted_linear(
        input.x.into_dispatch(),
        optional(input.dropped),
        input.weight.into(),
        optional(input.bias),
        update.a.into_dispatch(),
        optional(update.transform),
        update.up.into_dispatch(),
        update.scale,
    ))
}

/// `base + scale (Aᵀ[ids] Tᵀ) Bᵀ`: `[tokens, out]`.
pub(crate) fn embedding(update: Update, base: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    let mut hidden = update.a.select(1, ids).transpose();
    if let Some(t) = update.transform {
        hidden = hidden.matmul(t.transpose());
    }
    base + hidden
        .matmul(update.up.transpose())
        .mul_scalar(update.scale)
}

pub(crate) fn optional<const D: usize>(tensor: Option<Tensor<D>>) -> Optional<Dispatch> {
    tensor.map(Tensor::into_dispatch).into()
}
