use burn::tensor::{Device, Int, Tensor, TensorData};
use mtlora_core::{SequenceOffsets, SequenceOffsetsError};

use crate::families::text_config::TextConfig;
use crate::text::encoder::Tokens;

/// A batch of sequences end to end, on a device: no padding anywhere.
#[derive(Clone, Debug)]
pub struct PackedBatch {
    /// `[tokens]`
    pub ids: Tensor<1, Int>,
    /// `[tokens]`: 0 or 1 as the sequence's first or second text.
    pub type_ids: Tensor<1, Int>,
    /// `[tokens]`: the row of the position embeddings.
    pub positions: Tensor<1, Int>,
    /// `[sequences]`: the place of each sequence's first token.
    pub starts: Tensor<1, Int>,
    /// Where each sequence begins.
    pub offsets: SequenceOffsets,
}

impl PackedBatch {
    /// The batch of these sequences, in their order.
    ///
    /// # Errors
    /// When there is no sequence or an empty one.
    pub fn new(
        sequences: &[&Tokens],
        config: &dyn TextConfig,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let positions = sequences
            .iter()
            .flat_map(|tokens| config.positions(&tokens.ids));
        Self::with(sequences, positions.collect(), device)
    }

    /// The same for a model whose positions count from 0.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn from_zero(
        sequences: &[&Tokens],
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let positions = sequences
            .iter()
            .flat_map(|tokens| 0..tokens.ids.len())
            .collect();
        Self::with(sequences, positions, device)
    }

    fn with(
        sequences: &[&Tokens],
        positions: Vec<usize>,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.ids.len()).collect();
        let offsets = SequenceOffsets::from_lengths(&lengths)?;
        let ids = sequences.iter().flat_map(|tokens| &tokens.ids);
        let types = sequences.iter().flat_map(|tokens| &tokens.type_ids);
        let starts = offsets.starts().iter();
        Ok(Self {
            ids: ints(ids.map(|id| *id as i32), device),
            type_ids: ints(types.map(|id| *id as i32), device),
            positions: ints(
                positions.into_iter().map(|position| position as i32),
                device,
            ),
            starts: ints(starts.map(|start| *start as i32), device),
            offsets,
        })
    }
}

fn ints(values: impl Iterator<Item = i32>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
