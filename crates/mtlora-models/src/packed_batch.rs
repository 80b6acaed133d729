use burn::tensor::{Device, Int, Tensor, TensorData};
use mtlora_core::{SequenceOffsets, SequenceOffsetsError};

use crate::families::encoder::config::{Architecture, EncoderConfig};
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
    pub segments: SequenceOffsets,
}

impl PackedBatch {
    /// The strip of these sequences, in their order.
    ///
    /// # Errors
    /// When there is no sequence or an empty one.
    pub fn new(
        sequences: &[&Tokens],
        config: &EncoderConfig,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let first = config.first_position();
        let positions = sequences
            .iter()
            .flat_map(|tokens| match config.architecture {
                Architecture::Roberta => roberta_positions(&tokens.ids, config.pad_token_id),
                Architecture::Bert => (first..first + tokens.ids.len()).collect(),
            });
        Self::with(sequences, positions.collect(), device)
    }

    /// The same for a model whose positions count from `first`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn at(
        sequences: &[&Tokens],
        first: usize,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let lengths = sequences.iter().map(|tokens| tokens.ids.len());
        let positions = lengths.flat_map(|length| first..first + length);
        Self::with(sequences, positions.collect(), device)
    }

    fn with(
        sequences: &[&Tokens],
        positions: Vec<usize>,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.ids.len()).collect();
        let segments = SequenceOffsets::from_lengths(&lengths)?;
        let ids = sequences.iter().flat_map(|tokens| &tokens.ids);
        let types = sequences.iter().flat_map(|tokens| &tokens.type_ids);
        let starts = segments.starts().iter();
        Ok(Self {
            ids: ints(ids.map(|id| *id as i32), device),
            type_ids: ints(types.map(|id| *id as i32), device),
            positions: ints(
                positions.into_iter().map(|position| position as i32),
                device,
            ),
            starts: ints(starts.map(|start| *start as i32), device),
            segments,
        })
    }
}

/// RoBERTa's positions start at the padding token's id plus one. A padding token inside a text is not counted and gets the
/// padding token's id as its position (`create_position_ids_from_input_ids` in `transformers`).
fn roberta_positions(ids: &[u32], pad: usize) -> Vec<usize> {
    let mut position = pad;
    ids.iter()
        .map(|id| {
            if *id as usize == pad {
                pad
            } else {
                position += 1;
                position
            }
        })
        .collect()
}

fn ints(values: impl Iterator<Item = i32>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// transformers 5.24: `RobertaEmbeddings.create_position_ids_from_input_ids(ids, padding_idx=1)`.
    #[test]
    fn a_padding_token_in_a_text_has_its_own_position() {
        assert_eq!(roberta_positions(&[0, 5, 6, 2], 1), [2, 3, 4, 5]);
        assert_eq!(roberta_positions(&[0, 5, 1, 6, 2], 1), [2, 3, 1, 4, 5]);
        assert_eq!(roberta_positions(&[0, 1, 1, 2], 1), [2, 1, 1, 3]);
        assert_eq!(roberta_positions(&[1], 1), [1]);
        assert_eq!(roberta_positions(&[0, 3, 7], 3), [4, 3, 5]);
    }
}
