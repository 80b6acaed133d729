//! Selects the best of many scores without sorting all of them.

use std::cmp::Ordering;

/// A token that continues a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// The sequence's log-probability with this token.
    pub score: f32,
    /// The row among the prompt's rows.
    pub row: usize,
    /// The token.
    pub token: u32,
}

impl Candidate {
    /// Best score first; among equal scores, lower rows and then lower token ids first.
    fn order(a: &Self, b: &Self) -> Ordering {
        b.score
            .total_cmp(&a.score)
            .then(a.row.cmp(&b.row))
            .then(a.token.cmp(&b.token))
    }
}

/// Keeps the best `most` candidates of rows that are offered one after another. It has a buffer of twice that size and
/// the score that a candidate must beat, so that most scores cost only one comparison.
#[derive(Debug)]
pub(super) struct TopCandidates {
    most: usize,
    buffer: Vec<Candidate>,
    threshold: f32,
}

impl TopCandidates {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            buffer: Vec::with_capacity(2 * most.max(1)),
            threshold: f32::NEG_INFINITY,
        }
    }

    /// Offers the tokens of a row; `base` is added to each score. Rows must be offered in ascending order. Banned
    /// tokens, with a score of minus infinity, are not candidates.
    pub(super) fn offer(&mut self, row: usize, base: f32, scores: &[f32]) {
        for (token, score) in (0u32..).zip(scores) {
            let score = score + base;
            // An equal score loses, because its row or token comes later in the order.
            if score > self.threshold {
                self.buffer.push(Candidate { score, row, token });
                if self.buffer.len() == 2 * self.most {
                    self.cut();
                }
            }
        }
    }

    /// Returns the best candidates, best first, and starts over with an empty buffer.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Candidate> + '_ {
        self.buffer.sort_unstable_by(Candidate::order);
        self.buffer.truncate(self.most);
        self.threshold = f32::NEG_INFINITY;
        self.buffer.drain(..)
    }

    fn cut(&mut self) {
        let (_, worst, _) = self
            .buffer
            .select_nth_unstable_by(self.most - 1, Candidate::order);
        self.threshold = worst.score;
        self.buffer.truncate(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_head_of_a_full_sort(
            // Few distinct scores, so that ties are common.
            rows in prop::collection::vec((prop::collection::vec(-4i8..4, 1..60), -2i8..2), 1..5),
            most in 1usize..30,
        ) {
            let mut top = TopCandidates::new(most);
            let mut all = Vec::new();
            for (row, (scores, base)) in rows.iter().enumerate() {
                let scores: Vec<f32> = scores
                    .iter()
                    .map(|s| if *s == -4 { f32::NEG_INFINITY } else { f32::from(*s) })
                    .collect();
                top.offer(row, f32::from(*base), &scores);
                all.extend((0u32..).zip(&scores).filter(|(_, s)| s.is_finite()).map(|(token, s)| {
                    Candidate { score: s + f32::from(*base), row, token }
                }));
            }
            all.sort_by(Candidate::order);
            all.truncate(most);
            prop_assert_eq!(top.take().collect::<Vec<_>>(), all);
            top.offer(0, 0.0, &[1.0]);
            prop_assert_eq!(top.take().count(), 1);
        }
    }
}
