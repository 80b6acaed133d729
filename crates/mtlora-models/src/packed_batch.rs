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
    /// Number of tokens of the sequences that the batch was made of. The rows from here on belong to the dummy sequences
    /// of a [rounded](Self::rounded) batch.
    pub tokens: usize,
}

/// The fewest tokens or rows of a rounded batch.
const FEWEST: usize = 64;

/// How many rows a batch on `device` has for this many tokens or targets: more of them where each new number costs a
/// compilation ([`Capabilities::compiles_per_shape`](mtlora_core::Capabilities::compiles_per_shape)), else as many.
pub fn rounded_rows(count: usize, device: &Device) -> usize {
    if capabilities(device).compiles_per_shape {
        rounded(count)
    } else {
        count
    }
}

/// The next of four numbers in each octave (64, 80, 96, 112, 128, 160, ...), so that at most a quarter is added to 64 or
/// more.
fn rounded(count: usize) -> usize {
    if count <= FEWEST {
        return FEWEST;
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

    /// As [`new`](Self::new). Where the device compiles or tunes kernels for each new shape
    /// ([`Capabilities::compiles_per_shape`](mtlora_core::Capabilities::compiles_per_shape)), dummy sequences follow the
    /// given ones, so that batches have few different numbers of tokens.
    ///
    /// It is for callers who read only rows of their own sequences, such as those at [`starts`](Self::starts): hidden
    /// states have a row for each dummy token, too. The other rows do not depend on the dummy sequences, and neither do
    /// dropout's masks in them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn rounded(
        sequences: &[&Tokens],
        config: &dyn TextConfig,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let positions = |tokens: &Tokens| config.positions(&tokens.ids);
        Self::with(sequences, &dummies(sequences, device), positions, device)
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

    /// [`rounded`](Self::rounded) for a model whose positions count from 0.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn rounded_from_zero(
        sequences: &[&Tokens],
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let positions = |tokens: &Tokens| (0..tokens.ids.len()).collect();
        Self::with(sequences, &dummies(sequences, device), positions, device)
    }

    fn with(
        sequences: &[&Tokens],
        dummies: &[Tokens],
        positions: impl Fn(&Tokens) -> Vec<usize>,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let all = || sequences.iter().copied().chain(dummies);
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

/// The dummy sequences that round these up. None is longer than the longest of these, so that there are positions for it.
fn dummies(sequences: &[&Tokens], device: &Device) -> Vec<Tokens> {
    let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.ids.len()).collect();
    let rows = rounded_rows(lengths.iter().sum(), device);
    let dummy = |length| Tokens {
        ids: vec![0; length],
        type_ids: vec![0; length],
    };
    dummy_lengths(&lengths, rows)
        .into_iter()
        .map(dummy)
        .collect()
}

fn dummy_lengths(lengths: &[usize], rows: usize) -> Vec<usize> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    if longest == 0 {
        return Vec::new();
    }
    let missing = rows - lengths.iter().sum::<usize>();
    let mut dummies = vec![longest; missing / longest];
    dummies.extend(Some(missing % longest).filter(|rest| *rest > 0));
    dummies
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
        fn rounding_adds_at_most_a_quarter_and_gives_few_numbers(count in FEWEST..100_000) {
            let found = rounded(count);
            prop_assert!(found >= count && found <= count + count / 4, "{count} {found}");
            let octave = found.next_power_of_two();
            prop_assert_eq!(found % (octave / 8), 0);
            prop_assert_eq!(rounded(found), found);
        }

        #[test]
        fn dummy_sequences_fill_the_batch(lengths in prop::collection::vec(1usize..300, 1..40)) {
            let tokens: usize = lengths.iter().sum();
            let dummies = dummy_lengths(&lengths, rounded(tokens));
            let longest = lengths.iter().max();
            prop_assert!(dummies.iter().all(|length| *length > 0 && Some(length) <= longest));
            prop_assert_eq!(tokens + dummies.iter().sum::<usize>(), rounded(tokens));
        }
    }

    #[test]
    fn few_tokens_become_the_fewest() {
        for count in [0, 1, FEWEST] {
            assert_eq!(rounded(count), FEWEST);
        }
        assert_eq!(rounded(65), 80);
        assert!(dummy_lengths(&[], FEWEST).is_empty());
    }
}
