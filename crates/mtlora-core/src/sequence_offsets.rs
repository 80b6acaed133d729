use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Where each sequence begins in a packed batch: the tokens of all its sequences end to end.
///
/// Sequence `i` is tokens `offsets[i]..offsets[i + 1]`. Cloning is cheap, and clones share what
/// [`on_device`](Self::on_device) makes.
#[derive(Clone, Debug)]
pub struct SequenceOffsets {
    offsets: Arc<[usize]>,
    on_device: Arc<OnceLock<Tensor<1, Int>>>,
}

impl PartialEq for SequenceOffsets {
    fn eq(&self, other: &Self) -> bool {
        self.offsets == other.offsets
    }
}

impl Eq for SequenceOffsets {}

/// Why lengths make no packed batch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SequenceOffsetsError {
    /// There is no sequence.
    #[error("a packed batch needs at least one sequence")]
    NoSequence,
    /// A sequence has no token.
    #[error("sequence {index} is empty: every sequence of a packed batch needs at least one token")]
    EmptySequence {
        /// Which one, from 0.
        index: usize,
    },
}

/// Consecutive sequences of equal length: a rectangle without padding in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EqualLengthRun {
    /// The first token's place in the batch.
    pub start: usize,
    /// Number of sequences.
    pub count: usize,
    /// Number of tokens of each.
    pub length: usize,
}

impl EqualLengthRun {
    /// The place after the last token.
    pub fn end(&self) -> usize {
        self.start + self.count * self.length
    }
}

impl SequenceOffsets {
    /// The offsets of sequences with these numbers of tokens.
    ///
    /// # Errors
    /// When there is no sequence or one without tokens.
    pub fn from_lengths(lengths: &[usize]) -> Result<Self, SequenceOffsetsError> {
        if lengths.is_empty() {
            return Err(SequenceOffsetsError::NoSequence);
        }
        if let Some(index) = lengths.iter().position(|length| *length == 0) {
            return Err(SequenceOffsetsError::EmptySequence { index });
        }
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0;
        offsets.push(end);
        for length in lengths {
            end += length;
            offsets.push(end);
        }
        Ok(Self {
            offsets: offsets.into(),
            on_device: Arc::default(),
        })
    }

    /// The offsets in `device`'s memory: `[sequences + 1]`, the last being the number of tokens.
    ///
    /// They are uploaded when they are first asked for, and once for all clones, so that the layers of a model share
    /// one tensor per batch.
    pub fn on_device(&self, device: &Device) -> Tensor<1, Int> {
        let device = device.clone().inner();
        let made = self.on_device.get_or_init(|| self.uploaded(&device));
        if made.device() == device {
            made.clone()
        } else {
            self.uploaded(&device)
        }
    }

    fn uploaded(&self, device: &Device) -> Tensor<1, Int> {
        let offsets: Vec<i32> = self.offsets.iter().map(|offset| *offset as i32).collect();
        let count = offsets.len();
        Tensor::from_data(TensorData::new(offsets, [count]), device)
    }

    /// The same offsets without the tensor. Operations carry these: a queue that holds an operation must not own
    /// tensors that it does not know of.
    pub(crate) fn on_host(&self) -> Self {
        Self {
            offsets: self.offsets.clone(),
            on_device: Arc::default(),
        }
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.offsets[self.offsets.len() - 1]
    }

    /// The place of each sequence's first token.
    pub fn starts(&self) -> &[usize] {
        &self.offsets[..self.count()]
    }

    /// Number of tokens of each sequence.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// Number of entries of all attention matrices of one head: the sum of squared lengths.
    pub(crate) fn score_entries(&self) -> usize {
        self.lengths().map(|length| length * length).sum()
    }

    /// The batch as maximal runs of consecutive sequences of equal length.
    pub(crate) fn runs(&self) -> Vec<EqualLengthRun> {
        let mut runs: Vec<EqualLengthRun> = Vec::new();
        for (length, start) in self.lengths().zip(self.starts()) {
            match runs.last_mut() {
                Some(run) if run.length == length => run.count += 1,
                _ => runs.push(EqualLengthRun {
                    start: *start,
                    count: 1,
                    length,
                }),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn runs_cover_the_batch_in_order() {
        let offsets = SequenceOffsets::from_lengths(&[3, 3, 5, 1, 1, 1]).unwrap();
        let runs = offsets.runs();
        let run = |start, count, length| EqualLengthRun {
            start,
            count,
            length,
        };
        assert_eq!(runs, [run(0, 2, 3), run(6, 1, 5), run(11, 3, 1)]);
        assert_eq!(runs[2].end(), offsets.tokens());
        assert_eq!(offsets.score_entries(), 9 + 9 + 25 + 3);
        assert_eq!(offsets.starts(), [0, 3, 6, 11, 12, 13]);
    }

    #[test]
    fn clones_share_one_tensor_on_the_device() {
        for named in crate::devices() {
            let offsets = SequenceOffsets::from_lengths(&[3, 1, 2]).unwrap();
            let clone = offsets.clone();
            assert!(clone.on_device.get().is_none());
            let found = offsets.on_device(&named.device.clone().autodiff());
            let found = found.into_data().convert::<i32>();
            assert_eq!(found.try_to_vec::<i32>().unwrap(), [0, 3, 4, 6]);
            assert!(clone.on_device.get().is_some());
            assert!(offsets.on_host().on_device.get().is_none());
            assert_eq!(offsets.on_host(), clone);
        }
    }

    #[test]
    fn empty_sequences_are_refused() {
        assert_eq!(
            SequenceOffsets::from_lengths(&[]),
            Err(SequenceOffsetsError::NoSequence)
        );
        assert_eq!(
            SequenceOffsets::from_lengths(&[2, 0]),
            Err(SequenceOffsetsError::EmptySequence { index: 1 })
        );
    }
}
