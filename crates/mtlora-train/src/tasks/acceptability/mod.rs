//! A small English acceptability task that this project generates itself: is this sentence well formed?
//!
//! It has the question and the file format of CoLA (Warstadt et al. 2019), and is generated like BLiMP (Warstadt et al.
//! 2020): a grammar with about 700 word forms makes sentences that follow a rule of English or break it once. The rules
//! are about agreement, verb frames, reflexives, questions, negation and so on ([`phenomena`]). Most of them relate
//! words that are not adjacent, so word counts alone help very little.
//!
//! A seed gives the same bytes on every platform. [`corpus`] generates sentences for masked-language-model pre-training,
//! and none of them is one that [`sentences`] can generate: a hash of the text decides which of the two a sentence may
//! be in.

mod grammar;
mod lexicon;
mod phenomena;
mod task;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::tasks::synthetic::{self, Choose, PATIENCE, different, make_folder, write_lines};
use grammar::Grammar;
use phenomena::PHENOMENA;
pub use task::Acceptability;

/// One of this many sentences is for the task. The others are for the corpus.
const HELD_OUT: u64 = 8;

/// A sentence and whether it is well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The sentence, with a capital letter first and a full stop or a question mark at the end.
    pub text: String,
    /// Whether the sentence follows the rules of English.
    pub acceptable: bool,
    /// The rule that the sentence follows or breaks, one of [`phenomena`].
    pub phenomenon: &'static str,
}

/// The rules of English that sentences follow or break, in alphabetical order.
pub fn phenomena() -> impl Iterator<Item = &'static str> {
    PHENOMENA.iter().map(|(name, _)| *name)
}

/// `count` different sentences, in random order. Half of them are acceptable (one more if `count` is odd), overall and
/// for each phenomenon.
///
/// A train and a dev set that are parts of one result have no sentence in common. There are fewer sentences only if the
/// grammar is exhausted; it has about a million.
pub fn sentences(seed: u64, count: usize) -> Vec<Sentence> {
    let mut grammar = Grammar::new(seed, 0);
    let mut seen = BTreeSet::new();
    let mut sentences = Vec::new();
    // Each round contains all phenomena in random order, each with both answers.
    let mut round = Vec::new();
    let mut repeated = 0;
    while sentences.len() < count && repeated < PATIENCE {
        if round.is_empty() {
            round.extend(0..PHENOMENA.len());
            shuffle(&mut grammar, &mut round);
        }
        let acceptable = sentences.len() % 2 == 0;
        let Some(&which) = round.last() else { break };
        let (phenomenon, rule) = PHENOMENA[which];
        let text = rule(&mut grammar, acceptable).text();
        if !held_out(&text) {
            continue;
        }
        if !seen.insert(text.clone()) {
            repeated += 1;
            continue;
        }
        repeated = 0;
        if !acceptable {
            round.pop();
        }
        sentences.push(Sentence {
            text,
            acceptable,
            phenomenon,
        });
    }
    shuffle(&mut grammar, &mut sentences);
    sentences
}

/// `count` different acceptable sentences, none of which [`sentences`] generates with any seed. There are fewer only if
/// the grammar is exhausted.
pub fn corpus(seed: u64, count: usize) -> Vec<String> {
    let mut grammar = Grammar::new(seed, 1);
    different(count, || {
        loop {
            let (_, rule) = grammar.entry(&PHENOMENA);
            let text = rule(&mut grammar, true).text();
            if !held_out(&text) {
                return text;
            }
        }
    })
}

/// Writes `train.tsv` and `dev.tsv` with `train` and `dev` sentences into `dir`, which is created if it is missing. The
/// format is that of CoLA: no header, and the columns source (here the phenomenon), label (1 for acceptable), the
/// author's mark (`*` for unacceptable, or nothing) and sentence.
///
/// # Errors
/// The operating system's error, with the file's name. Files are never incomplete.
pub fn write_tsv(dir: &Path, seed: u64, train: usize, dev: usize) -> io::Result<()> {
    let all = sentences(seed, train.saturating_add(dev));
    let (train, dev) = all.split_at(train.min(all.len()));
    make_folder(dir)?;
    for (name, part) in [("train.tsv", train), ("dev.tsv", dev)] {
        write_lines(
            &dir.join(name),
            part.iter().map(|sentence| {
                let (label, mark) = if sentence.acceptable {
                    (1, "")
                } else {
                    (0, "*")
                };
                let Sentence {
                    text, phenomenon, ..
                } = sentence;
                format!("{phenomenon}\t{label}\t{mark}\t{text}")
            }),
        )?;
    }
    Ok(())
}

/// Writes a corpus of `count` acceptable sentences to `path`, one on each line.
///
/// # Errors
/// The operating system's error, with the file's name. The file is never incomplete.
pub fn write_corpus(path: &Path, seed: u64, count: usize) -> io::Result<()> {
    write_lines(path, corpus(seed, count))
}

/// Whether a sentence may be in the task; otherwise it may be in the corpus.
fn held_out(text: &str) -> bool {
    synthetic::held_out(text.bytes(), HELD_OUT)
}

/// Shuffles the items by the method of Fisher and Yates.
fn shuffle<T>(grammar: &mut Grammar, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, grammar.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    /// The words of a sentence, as they are written.
    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split([' ', ',', '.', '?'])
            .filter(|word| !word.is_empty())
    }

    #[test]
    fn a_seed_gives_its_own_sentences_always() {
        assert_eq!(sentences(3, 500), sentences(3, 500));
        assert_ne!(sentences(3, 500), sentences(4, 500));
        assert_eq!(corpus(3, 500), corpus(3, 500));
        assert_ne!(corpus(3, 500), corpus(4, 500));
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        // The sentences of seed 0 were used to train the tiny model, whose numbers depend on them.
        let lines = sentences(0, 1000)
            .into_iter()
            .map(|sentence| format!("{}{}\n", u8::from(sentence.acceptable), sentence.text));
        let hash = synthetic::fnv1a(lines.flat_map(String::into_bytes));
        assert_eq!(hash, 0x02ac_e852_30e1_21ba, "{hash:#x}");
    }

    #[test]
    fn both_answers_are_equally_frequent_overall_and_in_each_phenomenon() {
        let all = sentences(1, 2600);
        assert_eq!(all.len(), 2600);
        assert_eq!(all.iter().filter(|s| s.acceptable).count(), 1300);
        let mut counts = BTreeMap::new();
        for sentence in &all {
            let count: &mut [usize; 2] = counts.entry(sentence.phenomenon).or_default();
            count[usize::from(sentence.acceptable)] += 1;
        }
        assert_eq!(
            counts.keys().copied().collect::<Vec<_>>(),
            phenomena().collect::<Vec<_>>()
        );
        for (phenomenon, count) in counts {
            assert_eq!(count, [50, 50], "{phenomenon}");
        }
        assert_eq!(sentences(1, 7).iter().filter(|s| s.acceptable).count(), 4);
        assert!(sentences(1, 0).is_empty());
    }

    #[test]
    fn no_sentence_comes_twice() {
        let all = sentences(2, 20_000);
        let different: BTreeSet<_> = all.iter().map(|s| &s.text).collect();
        assert_eq!(different.len(), 20_000);
        let all = corpus(2, 20_000);
        let different: BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), 20_000);
    }

    #[test]
    fn nothing_unacceptable_is_ever_made_as_acceptable() {
        let task = sentences(5, 60_000);
        let (acceptable, unacceptable): (Vec<_>, Vec<_>) = task.iter().partition(|s| s.acceptable);
        let mut good: BTreeSet<_> = acceptable.iter().map(|s| s.text.as_str()).collect();
        let mut grammar = Grammar::new(6, 0);
        let more: Vec<_> = (0..60_000)
            .map(|n| PHENOMENA[n % PHENOMENA.len()].1(&mut grammar, true).text())
            .collect();
        good.extend(more.iter().map(String::as_str));
        for sentence in unacceptable {
            assert!(
                !good.contains(sentence.text.as_str()),
                "{}: {}",
                sentence.phenomenon,
                sentence.text
            );
        }
    }

    #[test]
    fn no_word_gives_the_answer_away() {
        let task = sentences(7, 40_000);
        let mut counts = BTreeMap::new();
        for sentence in &task {
            for word in words(&sentence.text) {
                let count: &mut [usize; 2] = counts.entry(word).or_default();
                count[usize::from(sentence.acceptable)] += 1;
            }
        }
        for (word, [bad, good]) in counts {
            assert!(
                bad + good < 60 || (bad < 4 * good && good < 4 * bad),
                "{word}: {bad} times where unacceptable, {good} times where acceptable"
            );
        }
    }

    #[test]
    fn the_corpus_knows_every_word_and_no_sentence_of_the_task() {
        let corpus = corpus(8, 40_000);
        let task = sentences(8, 10_000);
        let vocabulary: BTreeSet<_> = corpus.iter().flat_map(|text| words(text)).collect();
        assert!(vocabulary.len() > 500, "{}", vocabulary.len());
        let corpus: BTreeSet<_> = corpus.iter().collect();
        for sentence in &task {
            assert!(!corpus.contains(&sentence.text));
            for word in words(&sentence.text) {
                assert!(vocabulary.contains(word), "{word}: {}", sentence.text);
            }
        }
    }

    #[test]
    fn sentences_look_like_sentences() {
        for Sentence { text, .. } in sentences(9, 20_000) {
            assert!(
                text.starts_with(|first: char| first.is_ascii_uppercase()),
                "{text}"
            );
            assert!(text.ends_with(['.', '?']), "{text}");
            assert!(!text.contains("  ") && !text.contains(" ,"), "{text}");
            assert!((2..=40).contains(&words(&text).count()), "{text}");
            assert!(
                text.chars()
                    .all(|c| c.is_ascii_alphabetic() || " ,'.?".contains(c)),
                "{text}"
            );
        }
    }

    #[test]
    fn files_are_as_cola_publishes_them() {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("CoLA");
        write_tsv(&into, 0, 60, 40).unwrap();
        let all = sentences(0, 100);
        for (name, part) in [("train.tsv", &all[..60]), ("dev.tsv", &all[60..])] {
            let text = fs::read_to_string(into.join(name)).unwrap();
            assert_eq!(text.lines().count(), part.len());
            for (line, sentence) in text.lines().zip(part) {
                let columns: Vec<_> = line.split('\t').collect();
                let (label, mark) = if sentence.acceptable {
                    ("1", "")
                } else {
                    ("0", "*")
                };
                assert_eq!(
                    columns,
                    [sentence.phenomenon, label, mark, sentence.text.as_str()]
                );
            }
        }
        let path = dir.path().join("corpus.txt");
        write_corpus(&path, 0, 50).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), corpus(0, 50));
        assert_eq!(fs::read_dir(&into).unwrap().count(), 2);

        let error = write_corpus(&path.join("below-a-file"), 0, 5).unwrap_err();
        assert!(error.to_string().contains("below-a-file"), "{error}");
    }
}
