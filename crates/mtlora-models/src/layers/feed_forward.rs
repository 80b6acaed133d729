//! The maps of a feed-forward block.

use burn::nn::Linear;
use burn::tensor::Tensor;
use mtlora_core::{ActivationDtype, adapted_linear};

use super::activation::Activation;

/// The two widening maps of a gated block, of which the first is the gate: `[tokens, hidden]` to `[tokens, inner]`. Adapters
/// act on both.
pub fn widen_gated(maps: [&Linear; 2], activation: Activation, x: Tensor<2>) -> Tensor<2> {
    let saved = ActivationDtype::beside(&maps[0].weight);
    let [gate, up] = maps.map(|map| adapted_linear(map, x.clone()));
    activation.forward_gated(gate, up, saved)
}

/// The widening map with its activation: `[tokens, hidden]` to `[tokens, inner]`. Adapters act on the map.
pub fn widen(map: &Linear, activation: Activation, x: Tensor<2>) -> Tensor<2> {
    let saved = ActivationDtype::beside(&map.weight);
    activation.forward(adapted_linear(map, x), saved)
}
