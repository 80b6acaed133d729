//! A batch for a causal model: sequences, and which of their tokens are predicted.

use burn::tensor::{Device, Int, Tensor, TensorData};
use mtlora_core::{IGNORE_INDEX, SequenceOffsetsError};

use crate::packed_batch::{PackedBatch, bucket_size};
use crate::text::encoder::Tokens;

/// Sequences end to end, and which of their tokens are to be predicted. Tokens and targets are padded to a
/// [bucket](PackedBatch::bucketed) where the device compiles kernels for each new shape.
#[derive(Clone, Debug)]
pub struct CausalBatch {
    /// The sequences.
    pub packed: PackedBatch,
    /// Rows of the batch whose next token is predicted: `[targets]`.
    pub places: Tensor<1, Int>,
    /// The tokens that follow them: `[targets]`. Those from `count` on are [`IGNORE_INDEX`].
    pub targets: Tensor<1, Int>,
    /// How many tokens are predicted.
    pub count: usize,
}

impl CausalBatch {
    /// A batch of sequences, each with the indices of its tokens that count in the loss. The first
    /// token of a sequence, which nothing precedes, never counts.
    ///
    /// # Errors
    /// When there is no sequence, or an empty one.
    pub fn new<'a, C: IntoIterator<Item = usize>>(
        sequences: impl IntoIterator<Item = (&'a [u32], C)>,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let (mut tokens, mut places, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for (ids, counted) in sequences {
            for index in counted.into_iter().filter(|index| *index > 0) {
                places.push((start + index - 1) as i32);
                targets.push(ids[index] as i32);
            }
            start += ids.len();
            tokens.push(Tokens {
                ids: ids.to_vec(),
                type_ids: vec![0; ids.len()],
            });
        }
        let packed = PackedBatch::bucketed_from_zero(&tokens.iter().collect::<Vec<_>>(), device)?;
        let count = places.len();
        let rows = bucket_size(count, device);
        places.resize(rows, 0);
        targets.resize(rows, IGNORE_INDEX);
        let ints = |values: Vec<i32>| Tensor::from_data(TensorData::new(values, [rows]), device);
        Ok(Self {
            packed,
            places: ints(places),
            targets: ints(targets),
            count,
        })
    }
}
