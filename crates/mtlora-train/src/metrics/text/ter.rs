//! TER, the translation edit rate (Snover et al., 2006), with Tercom's limits as sacreBLEU has them.

use super::Pair;
use super::ngrams::Vocabulary;
use crate::data::python;

/// The longest run of words that one shift moves.
const MAX_SHIFT_SIZE: usize = 10;
/// How far a shift may reach.
const MAX_SHIFT_DISTANCE: usize = 50;
/// How many shifts of one hypothesis are tried in all.
const MAX_SHIFT_CANDIDATES: usize = 1000;
/// How far from the diagonal the edit distance looks.
const BEAM_WIDTH: usize = 25;
/// The cost of what the beam leaves out.
const UNREACHED: usize = usize::MAX / 2;

/// TER as sacreBLEU computes it with its defaults: words are what white space separates, case
/// ignored, punctuation kept; the edits against the closest reference, over the references' average
/// length. 0 or more, in percent: 100 is as many edits as words; less is better.
pub fn ter(pairs: &[Pair]) -> f64 {
    let mut vocabulary = Vocabulary::default();
    let mut ids = |text: &str| vocabulary.ids(python::split(&text.to_lowercase()));
    let (mut edits, mut length) = (0, 0.0);
    for pair in pairs {
        let hypothesis = ids(&pair.hypothesis);
        let references: Vec<_> = pair.present().map(&mut ids).collect();
        let closest = references
            .iter()
            .map(|reference| count_edits(&hypothesis, reference));
        edits += closest.min().unwrap_or(hypothesis.len());
        let words: usize = references.iter().map(Vec::len).sum();
        length += words as f64 / references.len().max(1) as f64;
    }
    match (edits, length > 0.0) {
        (_, true) => 100.0 * edits as f64 / length,
        (0, false) => 0.0,
        (_, false) => 100.0,
    }
}

/// Shifts, insertions, deletions and substitutions that turn `hypothesis` into `reference`. Shifts
/// are made one by one, the one that saves most first, while they save anything.
fn count_edits(hypothesis: &[u32], reference: &[u32]) -> usize {
    if reference.is_empty() {
        return hypothesis.len();
    }
    let (mut words, mut shifts, mut tried) = (hypothesis.to_vec(), 0, 0);
    loop {
        let table = Table::new(&words, reference);
        let best = best_shift(&words, reference, &table, &mut tried);
        match best {
            Some((saved, shifted)) if saved > 0 && tried < MAX_SHIFT_CANDIDATES => {
                words = shifted;
                shifts += 1;
            }
            // Outside of the beam nothing is known, and rewriting everything is always possible.
            _ => return shifts + table.cost().min(words.len().max(reference.len())),
        }
    }
}

/// The best shift with the edits that it saves: of equals the one that moves more words, then from
/// further left, then to further left. `tried` counts the shifts looked at.
fn best_shift(
    words: &[u32],
    reference: &[u32],
    table: &Table<'_>,
    tried: &mut usize,
) -> Option<(isize, Vec<u32>)> {
    let alignment = table.alignment();
    let (mut best, mut best_rank) = (None, None);
    for (start, target, length) in common_runs(words, reference) {
        if !alignment.allows(start, target, length) {
            continue;
        }
        let mut previous = None;
        for position in alignment.positions(target, length) {
            if previous.replace(position) == Some(position) {
                continue;
            }
            let shifted = shift(words, start, length, position);
            let cost = table.cost_of(&shifted, start.min(position));
            let saved = table.cost() as isize - cost as isize;
            let rank = (saved, length, -(start as isize), -(position as isize));
            *tried += 1;
            if best_rank < Some(rank) {
                (best, best_rank) = (Some((saved, shifted)), Some(rank));
            }
        }
        if *tried >= MAX_SHIFT_CANDIDATES {
            break;
        }
    }
    best
}

/// Runs of words that both have: where each starts in `words` and in `reference`, and its length.
fn common_runs<'a>(
    words: &'a [u32],
    reference: &'a [u32],
) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
    (0..words.len()).flat_map(move |start| {
        let from = start.saturating_sub(MAX_SHIFT_DISTANCE);
        let to = reference.len().min(start + MAX_SHIFT_DISTANCE + 1);
        (from..to).flat_map(move |target| {
            let tails = words.iter().skip(start).zip(reference.iter().skip(target));
            let equal = tails
                .take(MAX_SHIFT_SIZE)
                .take_while(|(a, b)| a == b)
                .count();
            (1..=equal).map(move |length| (start, target, length))
        })
    })
}

/// `words` with the `length` words at `start` moved to before `position`; a position within or
/// right behind them counts from their end, as in sacreBLEU.
fn shift(words: &[u32], start: usize, length: usize, position: usize) -> Vec<u32> {
    let end = (start + length).min(words.len());
    let position = match position {
        at if at < start || at > end => at,
        at => at + length,
    };
    let position = position.min(words.len());
    let mut shifted = words.to_vec();
    if position < start {
        if let Some(span) = shifted.get_mut(position..end) {
            span.rotate_right(length);
        }
    } else if let Some(span) = shifted.get_mut(start..position) {
        span.rotate_left(length.min(span.len()));
    }
    shifted
}

/// How a word pair was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Equal,
    Substitute,
    /// A word of the reference that the hypothesis lacks.
    Insert,
    /// A word of the hypothesis that the reference lacks.
    Delete,
    Unreached,
}

/// The edit distances of all prefixes of `words` and `reference`, near the diagonal.
struct Table<'a> {
    words: &'a [u32],
    reference: &'a [u32],
    rows: Vec<Vec<(usize, Step)>>,
}

impl<'a> Table<'a> {
    fn new(words: &'a [u32], reference: &'a [u32]) -> Self {
        let first = (0..=reference.len()).map(|cost| (cost, Step::Insert));
        let mut table = Self {
            words,
            reference,
            rows: vec![first.collect()],
        };
        for (at, &word) in words.iter().enumerate() {
            let row = table
                .rows
                .last()
                .map(|above| table.row(above, at + 1, word));
            table.rows.extend(row);
        }
        table
    }

    /// The row of the `at`-th word, counted from 1, below `above`.
    fn row(&self, above: &[(usize, Step)], at: usize, word: u32) -> Vec<(usize, Step)> {
        let columns = self.reference.len() + 1;
        let mut row = vec![(UNREACHED, Step::Unreached); columns];
        let (from, to) = self.beam(at);
        let mut left = UNREACHED;
        for (column, entry) in row.iter_mut().enumerate().take(to).skip(from) {
            let up = above.get(column).map_or(UNREACHED, |&(cost, _)| cost);
            let Some(before) = column.checked_sub(1) else {
                *entry = (up + 1, Step::Delete);
                left = up + 1;
                continue;
            };
            let corner = above.get(before).map_or(UNREACHED, |&(cost, _)| cost);
            let (cost, step) = if self.reference.get(before) == Some(&word) {
                (corner, Step::Equal)
            } else {
                (corner + 1, Step::Substitute)
            };
            // Of equal costs the first wins: the order is Tercom's.
            for (cost, step) in [
                (cost, step),
                (up + 1, Step::Delete),
                (left + 1, Step::Insert),
            ] {
                if cost < entry.0 {
                    *entry = (cost, step);
                }
            }
            left = entry.0;
        }
        row
    }

    /// The columns of a row that are looked at: around the diagonal, in the last row to the end.
    fn beam(&self, at: usize) -> (usize, usize) {
        let columns = self.reference.len() + 1;
        let ratio = self.reference.len() as f64 / self.words.len().max(1) as f64;
        let width = if ratio / 2.0 > BEAM_WIDTH as f64 {
            (ratio / 2.0).ceil() as usize + BEAM_WIDTH
        } else {
            BEAM_WIDTH
        };
        let diagonal = (at as f64 * ratio).floor() as usize;
        let to = if at == self.words.len() {
            columns
        } else {
            columns.min(diagonal + width)
        };
        (diagonal.saturating_sub(width).min(to), to)
    }

    fn cost(&self) -> usize {
        let last = self.rows.last().and_then(|row| row.last());
        last.map_or(UNREACHED, |&(cost, _)| cost)
    }

    /// The edit distance of `other`, which is as long as `words` and has the first `same` of them.
    fn cost_of(&self, other: &[u32], same: usize) -> usize {
        // The last row is the only one that depends on where the words end.
        let same = same.min(self.words.len().saturating_sub(1));
        let mut row = self.rows.get(same).cloned().unwrap_or_default();
        for (at, &word) in other.iter().enumerate().skip(same) {
            row = self.row(&row, at + 1, word);
        }
        row.last().map_or(UNREACHED, |&(cost, _)| cost)
    }

    /// The steps of the cheapest way, from the first on.
    fn steps(&self) -> Vec<Step> {
        let (mut row, mut column) = (self.words.len(), self.reference.len());
        let mut steps = Vec::with_capacity(row + column);
        while row > 0 || column > 0 {
            let step = self.rows.get(row).and_then(|row| row.get(column));
            let step = step.map_or(Step::Unreached, |&(_, step)| step);
            (row, column) = match step {
                Step::Equal | Step::Substitute => (row.saturating_sub(1), column.saturating_sub(1)),
                Step::Insert => (row, column.saturating_sub(1)),
                Step::Delete => (row.saturating_sub(1), column),
                Step::Unreached => break,
            };
            steps.push(step);
        }
        steps.reverse();
        steps
    }

    fn alignment(&self) -> Alignment {
        let mut alignment = Alignment::default();
        let mut next = 0;
        for step in self.steps() {
            let wrong = step != Step::Equal;
            if step != Step::Insert {
                next += 1;
                alignment.wrong_words.push(wrong);
            }
            if step != Step::Delete {
                alignment.behind.push(next);
                alignment.wrong_reference.push(wrong);
            }
        }
        alignment
    }
}

/// Which words of hypothesis and reference an edit distance sets side by side.
#[derive(Default)]
struct Alignment {
    /// For each word of the reference, where the word of the hypothesis that it is aligned to ends.
    behind: Vec<usize>,
    wrong_words: Vec<bool>,
    wrong_reference: Vec<bool>,
}

impl Alignment {
    /// Whether a shift makes sense: something is wrong here and there, and the words do not stand
    /// there already.
    fn allows(&self, start: usize, target: usize, length: usize) -> bool {
        let any = |wrong: &[bool], from| wrong.iter().skip(from).take(length).any(|&wrong| wrong);
        let Some(&behind) = self.behind.get(target) else {
            return false;
        };
        any(&self.wrong_words, start)
            && any(&self.wrong_reference, target)
            && !(start < behind && behind <= start + length)
    }

    /// Where words that belong at `target` of the reference may go: before what is aligned to it,
    /// or behind what is aligned to each of its words.
    fn positions(&self, target: usize, length: usize) -> impl Iterator<Item = usize> + '_ {
        let before = match target.checked_sub(1) {
            Some(before) => self.behind.get(before).copied(),
            None => Some(0),
        };
        let within = self.behind.iter().skip(target).take(length).copied();
        before.into_iter().chain(within)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, pair};
    use super::*;

    #[test]
    fn sentences_by_hand() {
        assert_close(ter(&[pair("a b c d", &["A B c d"])]), 0.0, 0.0);
        // One shift.
        assert_close(ter(&[pair("c d a b", &["a b c d"])]), 25.0, 1e-12);
        // One insertion against the closest, over the average length.
        let pairs = [pair("a b", &["x y z w", "a b c", ""])];
        assert_close(ter(&pairs), 100.0 / 3.5, 1e-12);
        assert_close(ter(&[pair("", &["a b"])]), 100.0, 1e-12);
        assert_close(ter(&[pair("a b c", &["d"])]), 300.0, 1e-12);
    }

    #[test]
    fn shifts_move_words() {
        let words = [0, 1, 2, 3, 4, 5];
        assert_eq!(shift(&words, 3, 2, 1), [0, 3, 4, 1, 2, 5]);
        assert_eq!(shift(&words, 1, 2, 5), [0, 3, 4, 1, 2, 5]);
        assert_eq!(shift(&words, 1, 2, 2), [0, 3, 1, 2, 4, 5]);
        assert_eq!(shift(&words, 1, 2, 3), [0, 3, 4, 1, 2, 5]);
        assert_eq!(shift(&words, 4, 2, 6), words);
    }
}
