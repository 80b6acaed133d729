//! The context of a layer's attention. It allows a layer to be written once for both training and decoding.

use burn::nn::Dropout;
use burn::tensor::Tensor;
use mtlora_core::{ActivationDtype, SequenceOffsets};

use super::attention::{Attention, PositionScheme, Projections};
use super::rotary::{Rotary, RotaryTables};

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

/// The positions of some tokens, and what attention makes of them once for all layers.
pub(crate) struct TokenPositions {
    positions: Vec<usize>,
    tables: Option<(Rotary, usize, RotaryTables)>,
}

impl TokenPositions {
    /// Tokens at these positions of their sequences.
    pub(crate) fn new(positions: impl IntoIterator<Item = usize>) -> Self {
        Self {
            positions: positions.into_iter().collect(),
            tables: None,
        }
    }

    /// The tokens of these sequences.
    pub(crate) fn of_sequences(sequences: &SequenceOffsets) -> Self {
        Self::new(sequences.lengths().flat_map(|length| 0..length))
    }

    /// Query and key with their positions, where attention has rotary ones.
    pub(crate) fn placed(
        &mut self,
        attention: &Attention,
        projections: Projections,
    ) -> Projections {
        let spec = attention.spec();
        let PositionScheme::Rotary(rotary) = spec.positions else {
            return projections;
        };
        let [query, key, value] = projections.separate();
        let width = spec.head_width;
        let made = self.tables.take();
        let tables = match made.filter(|(made, of, _)| *made == rotary && *of == width) {
            Some((.., tables)) => tables,
            None => RotaryTables::new(&rotary, width, &self.positions, &query.device()),
        };
        let placed = [tables.turn(query), tables.turn(key), value];
        self.tables = Some((rotary, width, tables));
        Projections::Separate(placed)
    }
}

/// The sequences of a batch.
pub struct BatchAttention<'a> {
    sequences: &'a SequenceOffsets,
    positions: TokenPositions,
}

impl<'a> BatchAttention<'a> {
    /// The context for a batch of these sequences, whose positions count from 0.
    pub fn new(sequences: &'a SequenceOffsets) -> Self {
        Self {
            sequences,
            positions: TokenPositions::of_sequences(sequences),
        }
    }
}

impl AttentionContext for BatchAttention<'_> {
    fn attend(
        &mut self,
        attention: &Attention,
        projections: Projections,
        dropout: &Dropout,
        saved: ActivationDtype,
    ) -> Tensor<2> {
        let projections = self.positions.placed(attention, projections);
        attention.over_batch(projections, self.sequences, dropout, saved)
    }
}
