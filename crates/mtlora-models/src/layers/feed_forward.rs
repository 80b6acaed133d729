//! The maps of a feed-forward block.

use burn::nn::Linear;
use burn::tensor::Tensor;
use mtlora_core::{ActivationDtype, adapted_linear};

use super::activation::Activation;

/// The widening map with its activation: `[tokens, hidden]` to `[tokens, inner]`. Adapters act on the map.
pub fn widen(map: &Linear, activation: Activation, x: Tensor<2>) -> Tensor<2> {
    let saved = ActivationDtype::beside(&map.weight);
    activation.forward(adapted_linear(map, x), saved)
}
