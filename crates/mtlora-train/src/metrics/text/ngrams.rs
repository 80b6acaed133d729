//! Counts n-grams. Their order is fixed, so that sums of floats are the same in every run.

use std::collections::HashMap;

/// N-grams and how often each of them occurs, sorted by n-gram.
pub(super) type Counts<'a, T> = Vec<(&'a [T], usize)>;

/// The n-grams of length `order` in `tokens`.
pub(super) fn counts<T: Ord>(tokens: &[T], order: usize) -> Counts<'_, T> {
    if order == 0 {
        return Vec::new();
    }
    let mut windows: Vec<&[T]> = tokens.windows(order).collect();
    windows.sort_unstable();
    windows
        .chunk_by(|a, b| a == b)
        .filter_map(|run| Some((*run.first()?, run.len())))
        .collect()
}

/// For each n-gram in any of `sets`, the largest of its counts.
pub(super) fn largest<'a, T: Ord>(sets: impl IntoIterator<Item = Counts<'a, T>>) -> Counts<'a, T> {
    let mut all: Vec<_> = sets.into_iter().flatten().collect();
    all.sort_unstable_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1)));
    all.dedup_by(|later, earlier| later.0 == earlier.0);
    all
}

/// How often `ngram` occurs.
pub(super) fn count<T: Ord>(counts: &Counts<'_, T>, ngram: &[T]) -> usize {
    counts
        .binary_search_by(|(known, _)| (*known).cmp(ngram))
        .ok()
        .and_then(|at| counts.get(at))
        .map_or(0, |&(_, count)| count)
}

/// The n-grams that are in both `a` and `b`, each with the smaller of its two counts.
pub(super) fn shared<'c, 'a, T: Ord>(
    a: &'c Counts<'a, T>,
    b: &'c Counts<'_, T>,
) -> impl Iterator<Item = (&'a [T], usize)> + 'c {
    a.iter()
        .map(|&(ngram, count_a)| (ngram, count_a.min(count(b, ngram))))
        .filter(|&(_, both)| both > 0)
}

/// The sum of all counts.
pub(super) fn total<T>(counts: &Counts<'_, T>) -> usize {
    counts.iter().map(|&(_, count)| count).sum()
}

/// Maps tokens to numbers, because n-grams of numbers are much faster to compare and to hash.
#[derive(Default)]
pub(super) struct Vocabulary(HashMap<String, u32>);

impl Vocabulary {
    /// The numbers of `tokens`; a new token gets the next number.
    pub(super) fn ids<S: Into<String>>(&mut self, tokens: impl IntoIterator<Item = S>) -> Vec<u32> {
        tokens
            .into_iter()
            .map(|token| {
                let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
                *self.0.entry(token.into()).or_insert(next)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_clipped_and_merged() {
        let (a, b) = ([1, 2, 1, 2, 1], [1, 2, 3]);
        let (ones_a, ones_b) = (counts(&a, 1), counts(&b, 1));
        assert_eq!(total(&ones_a), 5);
        assert_eq!(count(&ones_a, &[1]), 3);
        assert_eq!(count(&ones_a, &[3]), 0);
        let both: Vec<_> = shared(&ones_a, &ones_b).collect();
        assert_eq!(both, [(&[1][..], 1), (&[2][..], 1)]);
        let merged = largest([ones_a, ones_b]);
        assert_eq!(merged, [(&[1][..], 3), (&[2][..], 2), (&[3][..], 1)]);
        assert!(counts(&a, 0).is_empty() && counts(&a, 6).is_empty());
    }

    #[test]
    fn a_token_keeps_its_number() {
        let mut vocabulary = Vocabulary::default();
        assert_eq!(vocabulary.ids(["a", "b", "a"]), [0, 1, 0]);
        assert_eq!(vocabulary.ids(["c", "b"]), [2, 1]);
    }
}
