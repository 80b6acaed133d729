use burn::tensor::{Device, Int, Tensor, TensorData};
use mtlora_core::{SequenceOffsets, SequenceOffsetsError, capabilities};

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
    /// Number of tokens of the given sequences. In a [bucketed](Self::bucketed) batch, the rows after these belong to
    /// padding sequences.
    pub tokens: usize,
}

/// The size of the smallest bucket.
const SMALLEST_BUCKET: usize = 64;

/// The number of rows that `count` tokens or targets are padded to on `device`: the size of a bucket where each new
/// size costs a compilation ([`Capabilities::compiles_per_shape`](mtlora_core::Capabilities::compiles_per_shape)),
/// and `count` elsewhere.
pub fn bucket_size(count: usize, device: &Device) -> usize {
    if capabilities(device).compiles_per_shape {
        bucket_for(count)
    } else {
        count
    }
}

/// The smallest bucket for `count` rows. There are four sizes between powers of two (64, 80, 96, 112, 128, 160, ...), so
/// that at most a quarter of 64 rows or more is padding.
fn bucket_for(count: usize) -> usize {
    if count <= SMALLEST_BUCKET {
        return SMALLEST_BUCKET;
    }
    let step = count.next_power_of_two() / 8;
    count.next_multiple_of(step)
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
        let positions = |tokens: &Tokens| config.positions(&tokens.ids);
        Self::with(sequences, &[], positions, device)
    }

    /// As [`new`](Self::new), and padded to one of a few numbers of tokens where the device compiles or tunes kernels
    /// for each new shape ([`Capabilities::compiles_per_shape`](mtlora_core::Capabilities::compiles_per_shape)):
    /// padding sequences follow the given ones.
    ///
    /// Use it where only rows of the given sequences are read, such as those at [`starts`](Self::starts), because
    /// hidden states have rows for the padding, too. The padding changes neither the other rows nor dropout's masks in
    /// them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn bucketed(
        sequences: &[&Tokens],
        config: &dyn TextConfig,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let positions = |tokens: &Tokens| config.positions(&tokens.ids);
        Self::with(sequences, &padding(sequences, device), positions, device)
    }

    /// The batch for a model whose positions count from 0.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn from_zero(
        sequences: &[&Tokens],
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let positions = |tokens: &Tokens| (0..tokens.ids.len()).collect();
        Self::with(sequences, &[], positions, device)
    }

    /// [`bucketed`](Self::bucketed) for a model whose positions count from 0.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn bucketed_from_zero(
        sequences: &[&Tokens],
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let positions = |tokens: &Tokens| (0..tokens.ids.len()).collect();
        Self::with(sequences, &padding(sequences, device), positions, device)
    }

    fn with(
        sequences: &[&Tokens],
        padding: &[Tokens],
        positions: impl Fn(&Tokens) -> Vec<usize>,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let all = || sequences.iter().copied().chain(padding);
        let lengths: Vec<usize> = all().map(|tokens| tokens.ids.len()).collect();
        let offsets = SequenceOffsets::from_lengths(&lengths)?;
        let starts = &offsets.starts()[..sequences.len()];
        Ok(Self {
            ids: ints(
                all().flat_map(|tokens| &tokens.ids).map(|id| *id as i32),
                device,
            ),
            type_ids: ints(
                all()
                    .flat_map(|tokens| &tokens.type_ids)
                    .map(|id| *id as i32),
                device,
            ),
            positions: ints(
                all().flat_map(positions).map(|position| position as i32),
                device,
            ),
            starts: ints(starts.iter().map(|start| *start as i32), device),
            tokens: lengths[..sequences.len()].iter().sum(),
            offsets,
        })
    }
}

/// The sequences that pad these to a bucket. None is longer than the longest given one, so that the model has positions for
/// each of its tokens.
fn padding(sequences: &[&Tokens], device: &Device) -> Vec<Tokens> {
    let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.ids.len()).collect();
    let rows = bucket_size(lengths.iter().sum(), device);
    let sequence = |length| Tokens {
        ids: vec![0; length],
        type_ids: vec![0; length],
    };
    padding_lengths(&lengths, rows)
        .into_iter()
        .map(sequence)
        .collect()
}

fn padding_lengths(lengths: &[usize], rows: usize) -> Vec<usize> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    if longest == 0 {
        return Vec::new();
    }
    let missing = rows - lengths.iter().sum::<usize>();
    let mut lengths = vec![longest; missing / longest];
    lengths.extend(Some(missing % longest).filter(|rest| *rest > 0));
    lengths
}

fn ints(values: impl Iterator<Item = i32>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_adds_at_most_a_quarter_and_has_one_of_few_sizes(count in SMALLEST_BUCKET..100_000) {
            let found = bucket_for(count);
            prop_assert!(found >= count && found <= count + count / 4, "{count} {found}");
            let octave = found.next_power_of_two();
            prop_assert_eq!(found % (octave / 8), 0);
            prop_assert_eq!(bucket_for(found), found);
        }

        #[test]
        fn padding_fills_the_bucket(lengths in prop::collection::vec(1usize..300, 1..40)) {
            let tokens: usize = lengths.iter().sum();
            let padding = padding_lengths(&lengths, bucket_for(tokens));
            let longest = lengths.iter().max();
            prop_assert!(padding.iter().all(|length| *length > 0 && Some(length) <= longest));
            prop_assert_eq!(tokens + padding.iter().sum::<usize>(), bucket_for(tokens));
        }
    }

    #[test]
    fn few_tokens_use_the_smallest_bucket() {
        for count in [0, 1, SMALLEST_BUCKET] {
            assert_eq!(bucket_for(count), SMALLEST_BUCKET);
        }
        assert_eq!(bucket_for(65), 80);
        assert!(padding_lengths(&[], SMALLEST_BUCKET).is_empty());
    }
}
