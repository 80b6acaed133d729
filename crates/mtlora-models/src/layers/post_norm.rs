//! The halves of an encoder's layer that follow its attention, with the norm after the residual connection. BERT, RoBERTa
//! and DeBERTa have them under these names.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor};
use mtlora_core::adapted_linear;

use super::activation::Activation;
use super::feed_forward::widen;
use super::layer_norm::LayerNorm;
use super::weights::zero_linear;

/// What the parts of an encoder's layers have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PostNormSizes {
    /// Width of the hidden states.
    pub hidden: usize,
    /// Width between the two maps of the feed-forward part.
    pub inner: usize,
    /// The nonlinearity between them.
    pub activation: Activation,
    /// The probability of dropout before a residual connection.
    pub dropout: f64,
    /// What norms add to the variance.
    pub epsilon: f64,
}

/// A linear map with dropout, the residual connection, and a layer norm after it.
#[derive(Module, Debug)]
pub struct Output {
    /// The linear map: `[input, hidden]`.
    pub dense: Linear,
    /// Dropout before the residual connection.
    pub dropout: Dropout,
    /// The layer norm over the hidden size.
    pub layer_norm: LayerNorm,
}

impl Output {
    /// One for `input` values, whose values are all zero.
    pub(crate) fn new(sizes: PostNormSizes, input: usize, device: &Device) -> Self {
        Self {
            dense: zero_linear(input, sizes.hidden, device),
            dropout: DropoutConfig::new(sizes.dropout).init(),
            layer_norm: LayerNorm::new(sizes.hidden, sizes.epsilon, device),
        }
    }

    /// `x` `[tokens, input]` and `residual` `[tokens, hidden]` to `[tokens, hidden]`.
    pub(crate) fn forward(&self, x: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        let x = adapted_linear(&self.dense, x);
        self.layer_norm
            .forward_residual(&self.dropout, [x, residual])
    }
}

/// The first linear map of the feed-forward part, with its activation function.
#[derive(Module, Debug)]
pub struct Intermediate {
    /// `[hidden, intermediate_size]`
    pub dense: Linear,
    /// The activation function.
    #[module(skip)]
    pub activation: Activation,
}

impl Intermediate {
    /// One whose values are all zero.
    pub(crate) fn new(sizes: PostNormSizes, device: &Device) -> Self {
        Self {
            dense: zero_linear(sizes.hidden, sizes.inner, device),
            activation: sizes.activation,
        }
    }

    /// `[tokens, hidden]` to `[tokens, intermediate_size]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        widen(&self.dense, self.activation, x)
    }
}
