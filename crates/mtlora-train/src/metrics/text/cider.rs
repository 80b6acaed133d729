//! CIDEr (Vedantam et al., 2015).

use std::collections::HashMap;

use super::Pair;
use super::ngrams::{Vocabulary, counts};
use super::ptb;

const ORDER: usize = 4;
/// The standard deviation of the Gaussian penalty for a difference in length.
const SIGMA: f64 = 6.0;

/// CIDEr as the E2E challenge's `measure_scores.py` reports it (COCO's `cider.py`, which is CIDEr-D): ten times the
/// similarity of the n-gram vectors of the hypothesis and each reference, weighted by tf-idf over the references, and
/// averaged over orders, references and hypotheses. The score is from 0 to 10. It is 0 for a single hypothesis, because
/// then every n-gram is in all documents.
pub fn cider(pairs: &[Pair]) -> f64 {
    let mut vocabulary = Vocabulary::default();
    let mut ids = |text: &str| vocabulary.ids(ptb::caption_tokens(text));
    let tokens = |pair: &Pair| {
        let hypothesis = ids(&pair.hypothesis);
        (hypothesis, pair.present().map(&mut ids).collect::<Vec<_>>())
    };
    let corpus: Vec<_> = pairs.iter().map(tokens).collect();
    let weights = Weights::of(corpus.iter().map(|(_, references)| references.as_slice()));
    let score = |(hypothesis, references): &(Vec<u32>, Vec<Vec<u32>>)| {
        let hypothesis = weights.vectors(hypothesis);
        let similar = references
            .iter()
            .map(|reference| hypothesis.similarity(&weights.vectors(reference)));
        10.0 * similar.sum::<f64>() / references.len().max(1) as f64
    };
    corpus.iter().map(score).sum::<f64>() / corpus.len().max(1) as f64
}

/// The inverse document frequencies of n-grams. A document is the set of all references of one hypothesis.
struct Weights<'a> {
    documents: HashMap<&'a [u32], usize>,
    log_size: f64,
}

impl<'a> Weights<'a> {
    fn of(corpus: impl ExactSizeIterator<Item = &'a [Vec<u32>]>) -> Self {
        let log_size = (corpus.len().max(1) as f64).ln();
        let mut documents: HashMap<&[u32], usize> = HashMap::new();
        for references in corpus {
            let orders =
                (1..=ORDER).flat_map(|order| references.iter().flat_map(move |r| r.windows(order)));
            let mut ngrams: Vec<_> = orders.collect();
            ngrams.sort_unstable();
            ngrams.dedup();
            for ngram in ngrams {
                *documents.entry(ngram).or_default() += 1;
            }
        }
        Self {
            documents,
            log_size,
        }
    }

    fn vectors<'t>(&self, tokens: &'t [u32]) -> Vectors<'t> {
        let vector = |order: usize| {
            let weighted = counts(tokens, order).into_iter().map(|(ngram, count)| {
                let documents = self.documents.get(ngram).copied().unwrap_or(1);
                (
                    ngram,
                    count as f64 * (self.log_size - (documents as f64).ln()),
                )
            });
            weighted.collect::<Vec<_>>()
        };
        let by_order: [_; ORDER] = std::array::from_fn(|at| vector(at + 1));
        let norms = by_order.each_ref().map(|vector| {
            let squares = vector.iter().map(|(_, weight)| weight * weight);
            squares.sum::<f64>().sqrt()
        });
        Vectors {
            by_order,
            norms,
            // The script uses the number of bigrams as the length.
            length: tokens.len().saturating_sub(1) as f64,
        }
    }
}

/// The weighted n-grams of a sentence for each order, sorted.
struct Vectors<'a> {
    by_order: [Vec<(&'a [u32], f64)>; ORDER],
    norms: [f64; ORDER],
    length: f64,
}

impl Vectors<'_> {
    /// The cosine similarity with a reference, with weights clipped to the reference's, averaged over the orders and
    /// multiplied by the penalty for a difference in length.
    fn similarity(&self, reference: &Vectors<'_>) -> f64 {
        let difference = self.length - reference.length;
        let penalty = (-(difference * difference) / (2.0 * SIGMA * SIGMA)).exp();
        let orders = self.by_order.iter().zip(&reference.by_order);
        let norms = self.norms.iter().zip(&reference.norms);
        let mut sum = 0.0;
        for ((ours, theirs), (our_norm, their_norm)) in orders.zip(norms) {
            let norm = our_norm * their_norm;
            if norm > 0.0 {
                sum += clipped_product(ours, theirs) / norm;
            }
        }
        sum / ORDER as f64 * penalty
    }
}

fn clipped_product(ours: &[(&[u32], f64)], theirs: &[(&[u32], f64)]) -> f64 {
    let mut sum = 0.0;
    for &(ngram, weight) in ours {
        let found = theirs.binary_search_by(|(known, _)| (*known).cmp(ngram));
        if let Some(&(_, other)) = found.ok().and_then(|at| theirs.get(at)) {
            sum += weight.min(other) * other;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, pair};
    use super::*;

    #[test]
    fn sentences_by_hand() {
        // In the first pair, all n-grams up to order 4 are rare and match. In the second pair, only the 1-gram "x"
        // matches, with equal weights in vectors of two words. The lengths are equal in each pair.
        let pairs = [pair("a b c d", &["A b c d."]), pair("x y", &["x z"])];
        let expected = (10.0 + 10.0 * 0.5 / 4.0) / 2.0;
        assert_close(cider(&pairs), expected, 1e-9);
        // The hypothesis has two words too many.
        let pairs = [pair("a b c d e f", &["a b c d"]), pair("x", &["y"])];
        let cosines: f64 = [(4, 6), (3, 5), (2, 4), (1, 3)]
            .iter()
            .map(|&(few, many): &(i32, i32)| f64::from(few) / f64::from(few * many).sqrt())
            .sum();
        let expected = 10.0 * cosines / 4.0 * (-4.0_f64 / 72.0).exp() / 2.0;
        assert_close(cider(&pairs), expected, 1e-9);
        assert_close(cider(&[pair("a b", &["a b"])]), 0.0, 0.0);
        // White space is that of Python.
        let same = [pair("a b\u{1f}c d", &["a b c d"]), pair("x", &["y"])];
        assert_close(cider(&same), 5.0, 1e-9);
    }
}
