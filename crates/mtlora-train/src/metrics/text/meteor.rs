//! The exact and stem stages of METEOR 1.5 (Denkowski and Lavie, 2014), which need no data files.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};

use super::Pair;
use super::ptb;

/// METEOR 1.5's parameters for English.
const ALPHA: f64 = 0.85;
const BETA: f64 = 0.2;
const GAMMA: f64 = 0.6;
const DELTA: f64 = 0.75;
const EXACT_WEIGHT: f64 = 1.0;
const STEM_WEIGHT: f64 = 0.6;
/// The number of partial alignments that the beam search keeps.
const BEAM_WIDTH: usize = 40;

/// English closed-class words (determiners, pronouns, prepositions, conjunctions, auxiliaries and particles) and
/// punctuation. The list was compiled for this project. METEOR's own list consists of frequent words, so its scores are
/// slightly different.
const FUNCTION_WORDS: &str = "\
    a an the this that these those each every either neither some any no all both \
    i me my mine we us our ours you your yours he him his she her hers it its they them their theirs \
    one who whom whose which what there \
    about above across after against along among around as at before behind below beneath beside \
    between beyond by despite down during except for from in inside into like near of off on onto \
    out outside over past per since through throughout to toward towards under until up upon via \
    with within without \
    and but or nor so yet if because although though while whereas unless than whether when where \
    am is are was were be been being do does did done have has had having will would shall should can \
    could may might must not 's 're 've 'll 'd 'm n't ' . , ; : ? ! ... - -- '' ` lrb rrb";

/// How [`meteor_exact_stem`] treats punctuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punctuation {
    /// Punctuation is kept: each mark is a word. METEOR treats plain text in this way, which the WebNLG evaluation passes
    /// to it.
    Kept,
    /// Punctuation is dropped, as in COCO's caption evaluation, which the E2E challenge uses.
    Dropped,
}

/// METEOR 1.5 for English with only its exact and stem stages: parameters 0.85 0.2 0.6 0.75, weights 1 and 0.6, and
/// Snowball stems. The score is from 0 to 1. It is lower than that of the official program, which also matches synonyms
/// and paraphrases, so it can be compared only with other scores of this function.
pub fn meteor_exact_stem(pairs: &[Pair], punctuation: Punctuation) -> f64 {
    let stemmer = Stemmer::create(Algorithm::English);
    let words = |text: &str| Word::all(text, punctuation, &stemmer);
    let mut sums = Statistics::default();
    for pair in pairs {
        let hypothesis = words(&pair.hypothesis);
        let mut best: Option<(f64, Statistics)> = None;
        for reference in pair.present() {
            let found = Statistics::of(&hypothesis, &words(reference));
            let score = found.score();
            if best.as_ref().is_none_or(|(top, _)| score > *top) {
                best = Some((score, found));
            }
        }
        if let Some((_, found)) = best {
            sums.add(&found);
        }
    }
    sums.score()
}

/// A word in lower case, its stem and its weight.
struct Word {
    text: String,
    stem: String,
    weight: f64,
}

impl Word {
    fn all(text: &str, punctuation: Punctuation, stemmer: &Stemmer) -> Vec<Self> {
        let tokens = match punctuation {
            Punctuation::Kept => ptb::tokens(text),
            Punctuation::Dropped => ptb::caption_tokens(text),
        };
        // As in METEOR, `mid-priced` is split into two words, and `u.s.` becomes `us`.
        let parts = tokens.iter().flat_map(|token| {
            if token.chars().any(char::is_alphanumeric) {
                token.split('-').map(|part| part.replace('.', "")).collect()
            } else {
                vec![token.clone()]
            }
        });
        parts
            .filter(|part| !part.is_empty())
            .map(|text| Self::new(text, stemmer))
            .collect()
    }

    fn new(text: String, stemmer: &Stemmer) -> Self {
        static KNOWN: LazyLock<HashSet<&str>> =
            LazyLock::new(|| FUNCTION_WORDS.split_whitespace().collect());
        Self {
            weight: if KNOWN.contains(text.as_str()) {
                1.0 - DELTA
            } else {
                DELTA
            },
            stem: stemmer.stem(&text).into_owned(),
            text,
        }
    }

    /// The weight of the stage that matches the two words, or `None` if they do not match.
    fn matches(&self, other: &Self) -> Option<f64> {
        if self.text == other.text {
            Some(EXACT_WEIGHT)
        } else {
            (self.stem == other.stem).then_some(STEM_WEIGHT)
        }
    }
}

/// The sums of METEOR over a corpus. In an array, the first sum is that of the hypotheses and the second that of the
/// references.
#[derive(Clone, Default)]
struct Statistics {
    weighted_lengths: [f64; 2],
    weighted_matches: [f64; 2],
    matches: usize,
    chunks: usize,
}

impl Statistics {
    fn of(hypothesis: &[Word], reference: &[Word]) -> Self {
        let weight = |words: &[Word]| words.iter().map(|word| word.weight).sum::<f64>();
        let mut found = Self {
            weighted_lengths: [weight(hypothesis), weight(reference)],
            ..Self::default()
        };
        let alignment = align(hypothesis, reference);
        for (theirs, at) in reference.iter().zip(&alignment) {
            let ours = at.and_then(|at| hypothesis.get(at));
            if let Some((ours, stage)) = ours.and_then(|ours| Some((ours, ours.matches(theirs)?))) {
                let [our_sum, their_sum] = &mut found.weighted_matches;
                *our_sum += stage * ours.weight;
                *their_sum += stage * theirs.weight;
                found.matches += 1;
            }
        }
        let chunks = chunks(&alignment);
        // A sentence that matches completely in one chunk does not count as fragmented.
        let whole = found.matches == hypothesis.len() && found.matches == reference.len();
        found.chunks = if whole && chunks == 1 { 0 } else { chunks };
        found
    }

    fn add(&mut self, other: &Self) {
        let add = |sums: &mut [f64; 2], more: &[f64; 2]| {
            sums.iter_mut()
                .zip(more)
                .for_each(|(sum, more)| *sum += more);
        };
        add(&mut self.weighted_lengths, &other.weighted_lengths);
        add(&mut self.weighted_matches, &other.weighted_matches);
        self.matches += other.matches;
        self.chunks += other.chunks;
    }

    /// The weighted harmonic mean of precision and recall, reduced by the penalty for fragmentation.
    fn score(&self) -> f64 {
        if self.matches == 0 {
            return 0.0;
        }
        let [precision, recall] =
            std::array::from_fn(|side| self.weighted_matches[side] / self.weighted_lengths[side]);
        let mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall);
        let fragmentation = self.chunks as f64 / self.matches as f64;
        mean * (1.0 - GAMMA * fragmentation.powf(BETA))
    }
}

/// The number of chunks: runs of reference words that are aligned to a run of hypothesis words.
fn chunks(alignment: &[Option<usize>]) -> usize {
    let mut last = None;
    let mut chunks = 0;
    for &at in alignment {
        let continues = at.is_some_and(|at| last == Some(at));
        chunks += usize::from(at.is_some() && !continues);
        last = at.map(|at| at + 1);
    }
    chunks
}

/// An alignment of the first words of the reference.
#[derive(Clone, Default)]
struct Path {
    alignment: Vec<Option<usize>>,
    used: Vec<bool>,
    exact: usize,
    chunks: usize,
    distance: usize,
}

impl Path {
    /// The sort key of the path, which is smaller for a better path.
    fn rank(&self) -> (Reverse<usize>, usize, Reverse<usize>, usize) {
        let matches = self.used.iter().filter(|&&used| used).count();
        (
            Reverse(self.exact),
            self.chunks,
            Reverse(matches),
            self.distance,
        )
    }

    /// The path with the next word of the reference aligned to word `at` of the hypothesis, or to none.
    fn with(&self, at: Option<usize>, exact: bool) -> Self {
        let mut path = self.clone();
        let last = self.alignment.last().copied().flatten();
        if let Some(at) = at {
            if let Some(used) = path.used.get_mut(at) {
                *used = true;
            }
            path.exact += usize::from(exact);
            path.chunks += usize::from(last.is_none_or(|last| last + 1 != at));
            path.distance += at.abs_diff(self.alignment.len());
        }
        path.alignment.push(at);
        path
    }
}

/// For each word of the reference, the word of the hypothesis that it is aligned to. The best alignment is the one with
/// the most exact matches, then the fewest chunks, then the most stem matches, and then the shortest distances. Two
/// words that match only each other are always aligned. Chunks come before stem matches because the official program
/// rounds the weight of a stem match down to 0 in its search.
fn align(hypothesis: &[Word], reference: &[Word]) -> Vec<Option<usize>> {
    let same = hypothesis.len() == reference.len()
        && hypothesis
            .iter()
            .zip(reference)
            .all(|(a, b)| a.text == b.text);
    let candidates = candidates(hypothesis, reference, same);
    let mut rivals = vec![0; hypothesis.len()];
    for &(at, _) in candidates.iter().flatten() {
        if let Some(count) = rivals.get_mut(at) {
            *count += 1;
        }
    }
    let is_sure = |found: &[(usize, bool)]| match found {
        [(at, _)] => rivals.get(*at) == Some(&1),
        _ => false,
    };
    let mut paths = vec![Path {
        used: vec![false; hypothesis.len()],
        ..Path::default()
    }];
    for found in &candidates {
        paths.sort_by_key(Path::rank);
        paths.truncate(BEAM_WIDTH);
        let mut next = Vec::with_capacity(paths.len());
        for path in &paths {
            let free = found
                .iter()
                .filter(|(at, _)| path.used.get(*at) == Some(&false));
            next.extend(free.map(|&(at, exact)| path.with(Some(at), exact)));
            if !is_sure(found) {
                next.push(path.with(None, false));
            }
        }
        paths = next;
    }
    paths.sort_by_key(Path::rank);
    paths.into_iter().next().unwrap_or_default().alignment
}

/// For each word of the reference, the words of the hypothesis that match it, and whether the match is exact. Exact
/// matches come first.
fn candidates(
    hypothesis: &[Word],
    reference: &[Word],
    exact_only: bool,
) -> Vec<Vec<(usize, bool)>> {
    let matching = |theirs: &Word| {
        let found = hypothesis.iter().enumerate();
        let mut found: Vec<_> = found
            .filter_map(|(at, ours)| Some((at, ours.matches(theirs)? == EXACT_WEIGHT)))
            .filter(|&(_, exact)| exact || !exact_only)
            .collect();
        found.sort_by_key(|&(_, exact)| !exact);
        found
    };
    reference.iter().map(matching).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, pair};
    use super::*;

    fn score(hypothesis: &str, references: &[&str]) -> f64 {
        meteor_exact_stem(&[pair(hypothesis, references)], Punctuation::Dropped)
    }

    /// METEOR's score for a precision and a recall.
    fn by_hand(precision: f64, recall: f64, chunks: f64, matches: f64) -> f64 {
        let mean = 1.0 / (0.15 / precision + 0.85 / recall);
        mean * (1.0 - 0.6 * (chunks / matches).powf(0.2))
    }

    #[test]
    fn sentences_by_hand() {
        assert_close(score("The cat sat.", &["the cat sat"]), 1.0, 1e-12);
        assert_close(score("dogs", &["cats", "mice"]), 0.0, 0.0);
        // These characters separate words for Stanford's tokenizer.
        assert_close(score("The cat\u{1c}sat", &["the\u{a0}cat sat"]), 1.0, 1e-12);
        // The weight of "the" is 1/4, that of the other words 3/4. "cats" and "cat" have the same stem, and "slept" is
        // only in the hypothesis.
        let (precision, recall) = (
            (0.25 + 0.6 * 0.75) / (0.25 + 0.75 * 2.0),
            0.7 / (0.25 + 0.75),
        );
        let expected = by_hand(precision, recall, 1.0, 2.0);
        assert_close(score("the cats slept", &["the cat"]), expected, 1e-12);
        // All words match, in two chunks that have changed places.
        let expected = by_hand(1.0, 1.0, 2.0, 4.0);
        assert_close(
            score("near river quiet pub", &["quiet pub near river"]),
            expected,
            1e-12,
        );
        // The best reference counts. The sums are over two hypotheses: 3 words (weights 1/4, 3/4, 3/4) in one chunk,
        // which does not count because all words match, and 1 of 2 words in one chunk, which counts.
        let pairs = [
            pair("one cheap pub", &["x", "one cheap pub"]),
            pair("pub food", &["pub"]),
        ];
        let (precision, recall) = ((1.75 + 0.75) / (1.75 + 1.5), 1.0);
        let expected = by_hand(precision, recall, 1.0, 4.0);
        assert_close(
            meteor_exact_stem(&pairs, Punctuation::Dropped),
            expected,
            1e-12,
        );
    }

    #[test]
    fn punctuation_counts_where_it_is_kept() {
        let pairs = [pair("mid-priced food .", &["food !"])];
        let (precision, recall) = (0.75 / (0.75 * 3.0 + 0.25), 0.75 / (0.75 + 0.25));
        let kept = by_hand(precision, recall, 1.0, 1.0);
        assert_close(meteor_exact_stem(&pairs, Punctuation::Kept), kept, 1e-12);
        let dropped = by_hand(1.0 / 3.0, 1.0, 1.0, 1.0);
        assert_close(
            meteor_exact_stem(&pairs, Punctuation::Dropped),
            dropped,
            1e-12,
        );
    }

    #[test]
    fn the_alignment_has_few_chunks() {
        let stemmer = Stemmer::create(Algorithm::English);
        let words = |text: &str| Word::all(text, Punctuation::Dropped, &stemmer);
        let found = align(&words("the pub by the river"), &words("by the river"));
        assert_eq!(found, [Some(2), Some(3), Some(4)]);
        assert_eq!(chunks(&[Some(2), Some(3), None, Some(4), Some(0)]), 3);
    }
}
