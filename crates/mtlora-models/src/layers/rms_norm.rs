use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use mtlora_core::rms_norm;

/// Root mean square normalisation (arXiv 1910.07467), which has a scale and no shift.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// The scale: `[width]`.
    pub gamma: Param<Tensor<1>>,
    /// What is added to the mean square.
    pub epsilon: f64,
}

impl RmsNorm {
    /// A norm over `width` values that does not scale them.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([width], device),
            epsilon,
        }
    }

    /// Each row normalised: `[tokens, width]` to the same.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, self.gamma.val(), self.epsilon)
    }

    /// Each head normalised by itself: `[tokens, heads * width]` to the same.
    pub fn forward_heads(&self, x: Tensor<2>) -> Tensor<2> {
        let [tokens, all] = x.dims();
        let width = self.gamma.dims()[0];
        let heads = x.reshape([tokens * all / width, width]);
        self.forward(heads).reshape([tokens, all])
    }
}
