use burn::module::{Initializer, Module, Param};
use burn::nn::Dropout;
use burn::tensor::{Device, Tensor};
use mtlora_core::{layer_norm, residual_layer_norm};

/// Layer normalisation over `hidden`, with this project's backward pass; parameters are named as in
/// Burn's own.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// The scale: `[hidden]`.
    pub gamma: Param<Tensor<1>>,
    /// The shift: `[hidden]`.
    pub beta: Param<Tensor<1>>,
    /// What is added to the variance.
    pub epsilon: f64,
}

impl LayerNorm {
    /// A norm over `width` values that changes neither their scale nor their shift.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([width], device),
            beta: Initializer::Zeros.init([width], device),
            epsilon,
        }
    }

    /// Each row normalised: `[tokens, hidden]` to the same.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, self.gamma.val(), self.beta.val(), self.epsilon)
    }

    /// Each row of `dropout(x) + residual` normalised: both `[tokens, hidden]` to the same.
    pub fn forward_residual(&self, dropout: &Dropout, inputs: [Tensor<2>; 2]) -> Tensor<2> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        residual_layer_norm(inputs, dropout, gamma, beta, self.epsilon)
    }
}
