//! chrF (Popović, 2015) and chrF++ (Popović, 2017).

use super::Pair;
use super::ngrams::{Counts, counts, shared, total};
use crate::data::python;

const CHARACTER_ORDER: usize = 6;
/// The order of the longest word n-grams of chrF++; chrF does not use words.
const WORD_ORDER: usize = 2;
/// Recall has `BETA` squared times the weight of precision.
const BETA: f64 = 2.0;

/// chrF as sacreBLEU computes it with its defaults (`chrF2`: character n-grams up to order 6 without white space, beta
/// 2, case-sensitive). Each hypothesis is compared with its best reference. The score is from 0 to 100.
pub fn chrf(pairs: &[Pair]) -> f64 {
    score::<0>(pairs)
}

/// chrF++ as sacreBLEU computes it with `word_order=2` (`chrF2++`: like [`chrf`], with word n-grams up to order 2 in
/// addition). Each hypothesis is compared with its best reference. The score is from 0 to 100.
pub fn chrf_plus_plus(pairs: &[Pair]) -> f64 {
    score::<WORD_ORDER>(pairs)
}

/// The score with word n-grams up to order `WORDS`.
fn score<const WORDS: usize>(pairs: &[Pair]) -> f64 {
    let mut sums = Matches::<WORDS>::default();
    for pair in pairs {
        sums.add(&best(pair));
    }
    sums.f_score()
}

/// The matches with the reference that gives the best score, or with the first of several such references.
fn best<const WORDS: usize>(pair: &Pair) -> Matches<WORDS> {
    let hypothesis = Units::of(&pair.hypothesis);
    let hypothesis = hypothesis.counts();
    let mut best: Option<(f64, Matches<WORDS>)> = None;
    for reference in pair.present() {
        let matches = Matches::between(&hypothesis, &Units::of(reference).counts());
        let score = matches.f_score();
        if best.as_ref().is_none_or(|(top, _)| score > *top) {
            best = Some((score, matches));
        }
    }
    best.map(|(_, matches)| matches).unwrap_or_default()
}

/// The characters and words of a text.
struct Units<'a> {
    characters: Vec<char>,
    words: Vec<&'a str>,
}

/// The n-grams of a text, by order.
struct NGrams<'a, const WORDS: usize> {
    characters: [Counts<'a, char>; CHARACTER_ORDER],
    words: [Counts<'a, &'a str>; WORDS],
}

impl<'a> Units<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            characters: text.chars().filter(|&c| !python::is_space(c)).collect(),
            words: python::split(text).flat_map(split_punctuation).collect(),
        }
    }

    fn counts<const WORDS: usize>(&self) -> NGrams<'_, WORDS> {
        NGrams {
            characters: std::array::from_fn(|at| counts(&self.characters, at + 1)),
            words: std::array::from_fn(|at| counts(&self.words, at + 1)),
        }
    }
}

/// Splits off the punctuation mark at the end of a word, or else the one at its start. At most one mark is split off,
/// as in the official script.
fn split_punctuation(word: &str) -> impl Iterator<Item = &str> {
    let last = word.char_indices().next_back().map_or(0, |(at, _)| at);
    let cut = match word.as_bytes() {
        _ if last == 0 => 0,
        [.., end] if end.is_ascii_punctuation() => last,
        [start, ..] if start.is_ascii_punctuation() => 1,
        _ => 0,
    };
    let (head, tail) = word.split_at(cut);
    [head, tail].into_iter().filter(|part| !part.is_empty())
}

/// For each order, the numbers of n-grams in the hypothesis, in the reference, and in both.
#[derive(Clone)]
struct Matches<const WORDS: usize> {
    characters: [[usize; 3]; CHARACTER_ORDER],
    words: [[usize; 3]; WORDS],
}

impl<const WORDS: usize> Default for Matches<WORDS> {
    fn default() -> Self {
        Self {
            characters: [[0; 3]; CHARACTER_ORDER],
            words: [[0; 3]; WORDS],
        }
    }
}

impl<const WORDS: usize> Matches<WORDS> {
    fn between(hypothesis: &NGrams<'_, WORDS>, reference: &NGrams<'_, WORDS>) -> Self {
        let (ours, theirs) = (&hypothesis.characters, &reference.characters);
        let (our_words, their_words) = (&hypothesis.words, &reference.words);
        Self {
            characters: std::array::from_fn(|at| matches(&ours[at], &theirs[at])),
            words: std::array::from_fn(|at| matches(&our_words[at], &their_words[at])),
        }
    }

    fn orders(&self) -> impl Iterator<Item = &[usize; 3]> {
        self.characters.iter().chain(&self.words)
    }

    fn add(&mut self, other: &Self) {
        let sums = self.characters.iter_mut().chain(&mut self.words);
        for (sum, more) in sums.flatten().zip(other.orders().flatten()) {
            *sum += more;
        }
    }

    /// The F score of precision and recall, each averaged over the orders of which both texts have n-grams.
    fn f_score(&self) -> f64 {
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for &[hypothesis, reference, both] in self.orders() {
            if hypothesis > 0 && reference > 0 {
                precision += both as f64 / hypothesis as f64;
                recall += both as f64 / reference as f64;
                orders += 1.0;
            }
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall, factor) = (precision / orders, recall / orders, BETA * BETA);
        // The operations are in sacreBLEU's order, so that the same one of two nearly equal references is the best.
        let score = (1.0 + factor) * precision * recall;
        100.0 * (score / (factor * precision + recall))
    }
}

fn matches<T: Ord>(hypothesis: &Counts<'_, T>, reference: &Counts<'_, T>) -> [usize; 3] {
    // An order that the reference lacks does not count against the hypothesis.
    if reference.is_empty() {
        return [0; 3];
    }
    let both = shared(hypothesis, reference).map(|(_, count)| count).sum();
    [total(hypothesis), total(reference), both]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, pair};
    use super::*;

    #[test]
    fn a_sentence_by_hand() {
        // Correct are 3 of 4, 2 of 3, 1 of 2 and 0 of 1 character n-grams, and 1 of 2 and 0 of 1 word n-grams. The
        // lengths are equal, so precision, recall and F are the same.
        let expected = 100.0 * (3.0 / 4.0 + 2.0 / 3.0 + 1.0 / 2.0 + 0.0 + 1.0 / 2.0 + 0.0) / 6.0;
        assert_close(
            chrf_plus_plus(&[pair("ab cd", &["", "ab ce"])]),
            expected,
            1e-9,
        );
        let expected = 100.0 * (3.0 / 4.0 + 2.0 / 3.0 + 1.0 / 2.0 + 0.0) / 4.0;
        assert_close(chrf(&[pair("ab cd", &["", "ab ce"])]), expected, 1e-9);
        // chrF uses no words, so it does not matter where they are divided.
        assert_close(chrf(&[pair("ab cd", &["a b c d"])]), 100.0, 1e-9);
        assert!(chrf_plus_plus(&[pair("ab cd", &["a b c d"])]) < 100.0);
        assert_close(
            chrf_plus_plus(&[pair("ab cd", &["xx", "ab cd"])]),
            100.0,
            1e-9,
        );
        assert_close(chrf_plus_plus(&[pair("", &["ab"])]), 0.0, 0.0);
    }

    #[test]
    fn one_punctuation_mark_is_split_off() {
        let words = |word| split_punctuation(word).collect::<Vec<_>>();
        assert_eq!(words("(hi)"), ["(hi", ")"]);
        assert_eq!(words("(hi"), ["(", "hi"]);
        assert_eq!(words("é."), ["é", "."]);
        assert_eq!(words("."), ["."]);
        assert_eq!(words("é"), ["é"]);
    }
}
