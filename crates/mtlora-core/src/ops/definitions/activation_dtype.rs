//! The precision in which inputs are kept for the backward pass.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::module::Param;
use burn::tensor::{DType, Tensor};

use crate::ops::MtLoraBackend;
use crate::packed::words::WordFormat;

/// The precision in which an operation keeps its input for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActivationDtype {
    /// The input is kept as it is, without a copy.
    #[default]
    F32,
    /// The input is rounded to bfloat16, which halves its memory. This changes gradients by the rounding. Of the
    /// outputs it changes only those of attention, which rounds query, key and value in the forward pass, too, where there is
    /// a backward pass. Where [`Capabilities::rounds_attention`](crate::Capabilities::rounds_attention) holds, it does so in any
    /// case, and rounds the probabilities as well. Sums stay in 32-bit floats. All other operations use the exact input in the
    /// forward pass.
    Bf16,
}

impl ActivationDtype {
    /// The precision for an input of layers with such a weight: bfloat16 if the weight is kept in it.
    pub fn beside(weight: &Param<Tensor<2>>) -> Self {
        match weight.base().dtype() {
            DType::BF16 => ActivationDtype::Bf16,
            DType::QFloat(scheme) if WordFormat::of(&scheme) == Some(WordFormat::Bf16) => {
                ActivationDtype::Bf16
            }
            _ => ActivationDtype::F32,
        }
    }
}

/// The kept input in the precision of the gradient `dy`.
pub(in crate::ops) fn restored<B: MtLoraBackend>(
    saved: FloatTensor<B>,
    dy: &FloatTensor<B>,
) -> FloatTensor<B> {
    match (saved.dtype(), dy.dtype()) {
        (kept, own) if kept == own => saved,
        (DType::BF16, DType::F32) => B::widened(saved),
        (_, own) => B::float_cast(saved, own.into()),
    }
}

/// Each element rounded to bfloat16, in 32-bit floats and in bfloat16.
pub(in crate::ops) fn rounded_values<B: MtLoraBackend>(
    x: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let kept = B::rounded(x);
    (B::widened(kept.clone()), kept)
}
