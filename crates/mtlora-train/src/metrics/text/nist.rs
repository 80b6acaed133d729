//! NIST (Doddington, 2002).

use std::collections::HashMap;

use super::Pair;
use super::mteval13a;
use super::ngrams::{Vocabulary, counts, largest, shared};

const ORDER: usize = 5;

/// NIST as the E2E challenge's `measure_scores.py` reports it with its Python metrics (option `-p`, `pymteval.py`). It
/// uses the tokens of `mteval-v13a`, ignores case, and weights n-grams up to order 5 by their information in the
/// references. The score is in bits; it is at least 0 and has no upper bound. If hypotheses have different numbers of
/// references, the script's Perl metrics give another score, because they average the lengths of references differently.
pub fn nist(pairs: &[Pair]) -> f64 {
    let corpus = Corpus::of(pairs);
    let information = corpus.information();
    let sum: f64 = (1..=ORDER)
        .map(|order| corpus.precision(order, &information))
        .sum();
    sum * corpus.length_penalty()
}

/// The hypotheses, each with its references, as the numbers of their tokens.
struct Corpus(Vec<(Vec<u32>, Vec<Vec<u32>>)>);

impl Corpus {
    fn of(pairs: &[Pair]) -> Self {
        let mut vocabulary = Vocabulary::default();
        let mut ids = |text: &str| vocabulary.ids(mteval13a::tokenize_for_pymteval(text));
        let tokens = |pair: &Pair| {
            let hypothesis = ids(&pair.hypothesis);
            (hypothesis, pair.present().map(&mut ids).collect())
        };
        Self(pairs.iter().map(tokens).collect())
    }

    /// The information of each n-gram: the binary logarithm of the quotient of two counts in all references, that of the
    /// n-gram without its last word and that of the n-gram.
    fn information(&self) -> HashMap<&[u32], f64> {
        let mut occurrences: HashMap<&[u32], usize> = HashMap::new();
        for tokens in self.0.iter().flat_map(|(_, references)| references) {
            *occurrences.entry(&[]).or_default() += tokens.len();
            for ngram in (1..=ORDER).flat_map(|order| tokens.windows(order)) {
                *occurrences.entry(ngram).or_default() += 1;
            }
        }
        let bits = |(&ngram, &count): (&&'_ [u32], &usize)| {
            let prefix = ngram.split_last().map_or(count, |(_, prefix)| {
                occurrences.get(prefix).copied().unwrap_or(count)
            });
            (prefix as f64 / count as f64).log2()
        };
        occurrences
            .iter()
            .map(|entry| (*entry.0, bits(entry)))
            .collect()
    }

    /// The information of the n-grams that hypotheses share with their references, divided by the number of n-grams in
    /// the hypotheses.
    fn precision(&self, order: usize, information: &HashMap<&[u32], f64>) -> f64 {
        let (mut hits, mut length) = (0.0, 0.0);
        for (hypothesis, references) in &self.0 {
            let known = largest(references.iter().map(|tokens| counts(tokens, order)));
            for (ngram, count) in shared(&counts(hypothesis, order), &known) {
                hits += count as f64 * information.get(ngram).copied().unwrap_or(0.0);
            }
            // pymteval takes length + 1 - order as the number of a hypothesis's n-grams, even where this is negative.
            length += hypothesis.len() as f64 - (order as f64 - 1.0);
        }
        if length > 0.0 { hits / length } else { 0.0 }
    }

    /// The factor for short hypotheses: 1 if they are at least as long as the references on average, and 0.5 at two
    /// thirds of that length.
    fn length_penalty(&self) -> f64 {
        let length: usize = self.0.iter().map(|(hypothesis, _)| hypothesis.len()).sum();
        let average: f64 = (self.0.iter())
            .filter(|(_, references)| !references.is_empty())
            .map(|(_, references)| {
                references.iter().map(Vec::len).sum::<usize>() as f64 / references.len() as f64
            })
            .sum();
        if length == 0 || average == 0.0 {
            return 0.0;
        }
        let beta = 0.5_f64.ln() / 1.5_f64.ln().powi(2);
        (beta * (length as f64 / average).min(1.0).ln().powi(2)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, pair};
    use super::*;

    #[test]
    fn a_sentence_by_hand() {
        // Each of the four words has 2 bits of information. The word after each of them is certain and has 0 bits.
        let pairs = [pair("a B c d", &["a b c d"])];
        assert_close(nist(&pairs), 2.0, 1e-12);
        // White space is that of Python, so "a" and "b" are two words.
        let pairs = [pair("a\u{1c}b c d", &["a b c d"])];
        assert_close(nist(&pairs), 2.0, 1e-12);
        // At two thirds of the length, the score is halved.
        let pairs = [pair("a b", &["a b a"])];
        let ones = (2.0 * 0.0 + (3.0_f64 / 2.0).log2() + 3.0_f64.log2()) / 2.0;
        let twos = (2.0_f64 / 1.0).log2();
        assert_close(nist(&pairs), 0.5 * (ones + twos), 1e-12);
    }

    #[test]
    fn texts_with_nothing_in_common_score_0() {
        assert_close(nist(&[pair("", &["a b"])]), 0.0, 0.0);
        assert_close(nist(&[pair("x y", &["a b"])]), 0.0, 0.0);
    }
}
