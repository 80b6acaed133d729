//! The context of a layer's attention. It allows a layer to be written once for both training and decoding.

use burn::nn::Dropout;
use burn::tensor::Tensor;
use mtlora_core::{ActivationDtype, SequenceOffsets};

use super::attention::{Attention, Projections};

/// The tokens that a layer's attention attends to: the sequences of a batch, or the new tokens and a key-value cache.
pub trait AttentionContext {
    /// The attention of the next layer: `[tokens, heads * head_width]`. `dropout` acts on the probabilities while
    /// training, and `saved` says how query, key and value are kept for the backward pass.
    fn attend(
        &mut self,
        attention: &Attention,
        projections: Projections,
        dropout: &Dropout,
        saved: ActivationDtype,
    ) -> Tensor<2>;
}

/// The sequences of a batch.
pub struct BatchAttention<'a>(pub &'a SequenceOffsets);

impl AttentionContext for BatchAttention<'_> {
    fn attend(
        &mut self,
        attention: &Attention,
        projections: Projections,
        dropout: &Dropout,
        saved: ActivationDtype,
    ) -> Tensor<2> {
        attention.over_batch(projections, self.0, dropout, saved)
    }
}
