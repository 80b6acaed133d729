use std::sync::Arc;

/// Where each sequence begins in a strip: the tokens of all sequences of a batch end to end.
///
/// Sequence `i` is tokens `offsets[i]..offsets[i + 1]`. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceOffsets {
    offsets: Arc<[usize]>,
}

/// Why lengths make no strip.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SequenceOffsetsError {
    /// There is no sequence.
    #[error("a strip needs at least one sequence")]
    NoSequence,
    /// A sequence has no token.
    #[error("sequence {index} is empty: every sequence of a strip needs at least one token")]
    EmptySequence {
        /// Which one, from 0.
        index: usize,
    },
}

/// Consecutive sequences of equal length: a rectangle without padding in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EqualLengthRun {
    /// The first token's place in the strip.
    pub start: usize,
    /// How many sequences.
    pub count: usize,
    /// Tokens in each.
    pub length: usize,
}

impl EqualLengthRun {
    /// The place behind the last token.
    pub fn end(&self) -> usize {
        self.start + self.count * self.length
    }
}

impl SequenceOffsets {
    /// A strip of sequences with these numbers of tokens.
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
        })
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
    pub fn score_entries(&self) -> usize {
        self.lengths().map(|length| length * length).sum()
    }

    /// The strip as maximal runs of consecutive sequences of equal length.
    pub fn runs(&self) -> Vec<EqualLengthRun> {
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
    use super::*;

    #[test]
    fn runs_cover_the_strip_in_order() {
        let segments = SequenceOffsets::from_lengths(&[3, 3, 5, 1, 1, 1]).unwrap();
        let runs = segments.runs();
        let run = |start, count, length| EqualLengthRun {
            start,
            count,
            length,
        };
        assert_eq!(runs, [run(0, 2, 3), run(6, 1, 5), run(11, 3, 1)]);
        assert_eq!(runs[2].end(), segments.tokens());
        assert_eq!(segments.score_entries(), 9 + 9 + 25 + 3);
        assert_eq!(segments.starts(), [0, 3, 6, 11, 12, 13]);
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
