//! BLEU (Papineni et al., 2002), as computed by each of the four scripts that evaluations use.

use super::Pair;
use super::mteval13a;
use super::ngrams::{Vocabulary, counts, largest, shared};
use crate::data::python;

const ORDER: usize = 4;

/// How [`sacrebleu`] splits text into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokenization {
    /// sacreBLEU's default, `13a`, for ordinary text.
    #[default]
    V13a,
    /// sacreBLEU's `none`, which splits only at white space, for text that is already tokenized, as in DART.
    None,
}

/// BLEU as the E2E challenge's `measure_scores.py` reports it with its Python metrics (option `-p`, `pymteval.py`, a
/// port of `mteval-v13a.pl`). It uses the tokens of `mteval-v13a` and ignores case. The score is from 0 to 1.
pub fn bleu_mteval(pairs: &[Pair]) -> f64 {
    let found = Statistics::of(pairs, Blank::Skipped, mteval13a::tokenize_for_pymteval);
    let precision = |at: usize| {
        // pymteval takes length + 1 - order as the number of a hypothesis's n-grams, even where this is negative.
        let total = found.hypothesis_length as f64 - (at * pairs.len()) as f64;
        // pymteval's lower bounds keep the logarithms finite.
        ((found.correct[at] as f64).max(1e-15) / total.max(1e-9)).min(1.0)
    };
    found.score(std::array::from_fn(precision))
}

/// BLEU as Moses' `multi-bleu.perl` computes it. Tokens are separated by white space, of which only the ASCII
/// characters count, because the script reads bytes. A blank reference counts as a reference without words, as in the
/// script. The score is from 0 to 100.
pub fn multi_bleu(pairs: &[Pair]) -> f64 {
    multi(pairs, |text| {
        let words = text.split(|c| matches!(c, '\t'..='\r' | ' '));
        let words = words.filter(|word| !word.is_empty());
        words.map(str::to_string).collect()
    })
}

/// BLEU as Moses' `multi-bleu-detok.perl` computes it, which the WebNLG 2020 evaluation uses. It uses the tokens of
/// `mteval-v13a` and is case-sensitive. A blank reference counts as a reference without words, as in the script; if
/// references are missing, this makes the brevity penalty milder. The score is from 0 to 100.
pub fn multi_bleu_detok(pairs: &[Pair]) -> f64 {
    multi(pairs, mteval13a::tokenize_as_perl)
}

/// BLEU as sacreBLEU computes it (Post, 2018): case-sensitive, with exponential smoothing, and without blank
/// references. The score is from 0 to 100.
pub fn sacrebleu(pairs: &[Pair], tokenization: Tokenization) -> f64 {
    let tokenize: fn(&str) -> Vec<String> = match tokenization {
        Tokenization::V13a => |text| mteval13a::tokenize(python::rstrip(text)),
        Tokenization::None => |text| python::split(text).map(str::to_string).collect(),
    };
    let found = Statistics::of(pairs, Blank::Skipped, tokenize);
    let mut smoothing = 1.0;
    let precisions = found.precisions().map(|(correct, total)| {
        if correct > 0.0 || found.correct[0] == 0 {
            return correct / total;
        }
        smoothing *= 2.0;
        1.0 / (smoothing * total)
    });
    100.0 * found.score(precisions)
}

fn multi(pairs: &[Pair], tokenize: impl Fn(&str) -> Vec<String>) -> f64 {
    let found = Statistics::of(pairs, Blank::Counted, tokenize);
    100.0 * found.score(found.precisions().map(|(correct, total)| correct / total))
}

/// How blank references are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blank {
    Skipped,
    Counted,
}

/// The sums of BLEU over a corpus: for each order, the n-grams of the hypotheses and those that are also in a
/// reference, and the lengths in tokens.
#[derive(Default)]
struct Statistics {
    correct: [usize; ORDER],
    total: [usize; ORDER],
    hypothesis_length: usize,
    reference_length: usize,
}

impl Statistics {
    fn of(pairs: &[Pair], blank: Blank, tokenize: impl Fn(&str) -> Vec<String>) -> Self {
        let mut vocabulary = Vocabulary::default();
        let mut sums = Self::default();
        for pair in pairs {
            let hypothesis = vocabulary.ids(tokenize(&pair.hypothesis));
            let references: Vec<_> = pair
                .references
                .iter()
                .filter(|reference| blank == Blank::Counted || !python::is_blank(reference))
                .map(|reference| vocabulary.ids(tokenize(reference)))
                .collect();
            sums.add(&hypothesis, &references);
        }
        sums
    }

    fn add(&mut self, hypothesis: &[u32], references: &[Vec<u32>]) {
        let length = hypothesis.len();
        self.hypothesis_length += length;
        // The closest length counts; of two that are equally close, the shorter.
        self.reference_length += references
            .iter()
            .map(Vec::len)
            .min_by_key(|&reference| (reference.abs_diff(length), reference))
            .unwrap_or(0);
        for (at, (correct, total)) in self.correct.iter_mut().zip(&mut self.total).enumerate() {
            let order = at + 1;
            let known = largest(references.iter().map(|tokens| counts(tokens, order)));
            *correct += shared(&counts(hypothesis, order), &known)
                .map(|(_, count)| count)
                .sum::<usize>();
            *total += (length + 1).saturating_sub(order);
        }
    }

    /// For each order, the numbers of correct n-grams and of all n-grams of the hypotheses.
    fn precisions(&self) -> [(f64, f64); ORDER] {
        std::array::from_fn(|at| (self.correct[at] as f64, self.total[at] as f64))
    }

    /// The geometric mean of the precisions times the brevity penalty. An order with a precision of 0,
    /// or without n-grams, makes the score 0.
    fn score(&self, precisions: [f64; ORDER]) -> f64 {
        // Dividing by 0 n-grams gives infinity or NaN.
        let defined = |precision: &f64| *precision > 0.0 && precision.is_finite();
        if self.hypothesis_length == 0 || !precisions.iter().all(defined) {
            return 0.0;
        }
        let logarithms: f64 = precisions.iter().map(|precision| precision.ln()).sum();
        let ratio = self.reference_length as f64 / self.hypothesis_length as f64;
        ((1.0 - ratio).min(0.0) + logarithms / ORDER as f64).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, pair};
    use super::*;

    #[test]
    fn a_sentence_by_hand() {
        // Correct are 5 of 6 1-grams, 3 of 5 2-grams, 1 of 4 3-grams and 0 of 3 4-grams. The lengths are equal.
        let pairs = [pair("the cat sat on the mat", &["the cat lay on the mat"])];
        assert_close(multi_bleu(&pairs), 0.0, 0.0);
        let smoothed = (5.0_f64 / 6.0 * 3.0 / 5.0 * 1.0 / 4.0 / (2.0 * 3.0)).powf(0.25) * 100.0;
        assert_close(sacrebleu(&pairs, Tokenization::V13a), smoothed, 1e-9);
        let pairs = [pair("A b c d", &["A b c d e", "A b c d e f"])];
        let penalty = (1.0_f64 - 5.0 / 4.0).exp();
        assert_close(multi_bleu_detok(&pairs), 100.0 * penalty, 1e-9);
        assert_close(bleu_mteval(&pairs), penalty, 1e-9);
    }

    #[test]
    fn short_hypotheses_are_counted_as_in_pymteval() {
        // The hypotheses have 6 tokens and 1 (empty) token, and so 7, 5 + 0, 4 - 1 and 3 - 2 n-grams of orders 1 to 4.
        let pairs = [pair("a b c d e f", &["A b c d e y"]), pair("", &["x"])];
        let precisions = [5.0 / 7.0, 4.0 / 5.0, 3.0 / 3.0, 1.0_f64];
        let expected = precisions.iter().product::<f64>().powf(0.25);
        assert_close(bleu_mteval(&pairs), expected, 1e-12);
    }

    #[test]
    fn the_scripts_differ_in_tokens_case_and_blank_references() {
        let pairs = [pair("The river, near it.", &["the river , near it .", ""])];
        assert_close(multi_bleu(&pairs), 0.0, 0.0);
        assert_close(bleu_mteval(&pairs), 1.0, 1e-9);
        assert!(multi_bleu_detok(&pairs) < 100.0);
        assert!(sacrebleu(&pairs, Tokenization::None) < sacrebleu(&pairs, Tokenization::V13a));
        // One token is closer to no token than to three, so there is no brevity penalty if blank references count.
        let text = "a b c d a b c d a b c d";
        let pairs = [pair(text, &[text]), pair("a", &["a b c", ""])];
        let penalty = (1.0_f64 - 15.0 / 13.0).exp();
        assert_close(multi_bleu(&pairs), 100.0, 1e-9);
        assert_close(sacrebleu(&pairs, Tokenization::None), 100.0 * penalty, 1e-9);
    }

    #[test]
    fn white_space_is_that_of_each_script() {
        let joined = |c: char| [pair(&format!("a{c}b c d e"), &["a b c d e"])];
        // Moses' scripts were run with Perl 5.36: they print 100.00 if they split at the character, and otherwise 0.00,
        // because no four words in a row match.
        let split = |c: char| {
            let whole = |score: f64| (score - 100.0).abs() < 1e-9;
            let pairs = joined(c);
            [
                whole(multi_bleu(&pairs)),
                whole(multi_bleu_detok(&pairs)),
                whole(sacrebleu(&pairs, Tokenization::None)),
                whole(sacrebleu(&pairs, Tokenization::V13a)),
                (bleu_mteval(&pairs) - 1.0).abs() < 1e-9,
            ]
        };
        for c in ['\t', '\u{b}', '\u{c}', '\r', ' '] {
            assert_eq!(split(c), [true; 5], "{c:?}");
        }
        for c in [
            '\u{85}', '\u{a0}', '\u{1680}', '\u{2028}', '\u{202f}', '\u{3000}',
        ] {
            assert_eq!(split(c), [false, true, true, true, true], "{c:?}");
        }
        for c in ['\u{1c}', '\u{1d}', '\u{1e}', '\u{1f}'] {
            assert_eq!(split(c), [false, false, true, true, true], "{c:?}");
        }
        for c in ['\u{1b}', '\u{180e}', '\u{200b}', '\u{2060}', '\u{feff}'] {
            assert_eq!(split(c), [false; 5], "{c:?}");
        }
    }
}
