//! The precision in which inputs are kept for the backward pass.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::module::Param;
use burn::tensor::{DType, Tensor};

/// The precision in which an operation keeps its input for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActivationDtype {
    /// The input is kept as it is, without a copy.
    #[default]
    F32,
    /// The input is rounded to bfloat16, which halves its memory. This changes gradients by the rounding. Of the
    /// outputs it changes only those of attention: where
    /// [`Capabilities::rounds_attention`](crate::Capabilities::rounds_attention) holds, attention rounds the factors
    /// of its products (query, key, value and probabilities) to bfloat16 in the forward pass as well as in the
    /// backward pass. Sums stay in 32-bit floats. All other operations use the exact input in the forward pass.
    Bf16,
}

impl ActivationDtype {
    /// The precision for an input that was multiplied with this weight: bfloat16 if the weight is kept in it, since the
    /// product rounded the input to it anyway.
    pub fn beside(weight: &Param<Tensor<2>>) -> Self {
        match weight.base().dtype() {
            DType::BF16 => ActivationDtype::Bf16,
            _ => ActivationDtype::F32,
        }
    }
}

/// The kept input in the precision of the gradient `dy`.
pub(in crate::ops) fn restored<B: Backend>(
    saved: FloatTensor<B>,
    dy: &FloatTensor<B>,
) -> FloatTensor<B> {
    if saved.dtype() == dy.dtype() {
        saved
    } else {
        B::float_cast(saved, dy.dtype().into())
    }
}
