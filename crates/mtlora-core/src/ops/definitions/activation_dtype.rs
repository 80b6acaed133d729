//! What the backward pass will read, in less memory.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::module::Param;
use burn::tensor::{DType, Tensor};

/// In which precision an operation keeps its input for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActivationDtype {
    /// As it is: no copy.
    #[default]
    F32,
    /// Rounded to bfloat16: half the memory. Attention's products may then round their factors to it in both
    /// passes, as burn-flex does where the processor multiplies bfloat16; sums stay in 32-bit floats. Everywhere
    /// else the forward pass reads its input as it is.
    Bf16,
}

impl ActivationDtype {
    /// What suits an input that was multiplied with this weight: where that is kept in bfloat16, the
    /// input was rounded to it, too.
    pub fn beside(weight: &Param<Tensor<2>>) -> Self {
        match weight.base().dtype() {
            DType::BF16 => ActivationDtype::Bf16,
            _ => ActivationDtype::F32,
        }
    }
}

/// What was kept, in the precision of the gradient.
pub(in crate::ops) fn restored<B: Backend>(
    saved: FloatTensor<B>,
    dy: &FloatTensor<B>,
) -> FloatTensor<B> {
    match saved.dtype() == dy.dtype() {
        true => saved,
        false => B::float_cast(saved, dy.dtype().into()),
    }
}
