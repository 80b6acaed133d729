//! TER, the translation edit rate (Snover et al., 2006), with Tercom's limits as in sacreBLEU.

use super::Pair;
use super::ngrams::Vocabulary;
use crate::data::python;

/// The largest number of words that one shift moves.
const MAX_SHIFT_SIZE: usize = 10;
/// The largest distance of a shift, in words.
const MAX_SHIFT_DISTANCE: usize = 50;
/// The largest number of shifts that are tried for one hypothesis.
const MAX_SHIFT_CANDIDATES: usize = 1000;
/// How far from the diagonal edit distances are computed.
const BEAM_WIDTH: usize = 25;
/// The cost of entries outside of the beam.
const UNREACHED: usize = usize::MAX / 2;

/// TER as sacreBLEU computes it with its defaults: words are separated by white space, case is ignored, and punctuation
/// is kept. The number of edits to the closest reference is divided by the average length of the references. The score
/// is in percent and at least 0; 100 means as many edits as words, and lower is better.
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

/// The number of shifts, insertions, deletions and substitutions that turn `hypothesis` into `reference`. Shifts are
/// made one by one, always the one that saves the most edits, until none saves any.
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
            // Costs outside of the beam are unknown, but rewriting everything is always possible.
            _ => return shifts + table.cost().min(words.len().max(reference.len())),
        }
    }
}

/// The best shift and the number of edits that it saves. Of several equal shifts, it is the one that moves the most
/// words, then the one from furthest left, then the one to furthest left. `tried` counts the shifts that were tried.
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

/// The runs of words that occur in both: the start in `words`, the start in `reference`, and the length.
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

/// `words` with the `length` words at `start` moved to before `position`. As in sacreBLEU, a position inside of the
/// moved words or directly after them is counted from their end.
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

/// The edit that leads to an entry of the table.
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

    /// The row of word number `at`, counted from 1, which follows the row `above`.
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
            // The first of equal costs wins, so the order must be Tercom's.
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

    /// The range of columns of a row that are computed: those around the diagonal, and in the last row also all that
    /// follow.
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

    /// The edit distance of `other`, which has the same length as `words` and the same first `same` words.
    fn cost_of(&self, other: &[u32], same: usize) -> usize {
        // Only the last row depends on the number of words.
        let same = same.min(self.words.len().saturating_sub(1));
        let mut row = self.rows.get(same).cloned().unwrap_or_default();
        for (at, &word) in other.iter().enumerate().skip(same) {
            row = self.row(&row, at + 1, word);
        }
        row.last().map_or(UNREACHED, |&(cost, _)| cost)
    }

    /// The steps of the cheapest sequence of edits, in order.
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
                alignment.after.push(next);
                alignment.wrong_reference.push(wrong);
            }
        }
        alignment
    }
}

/// Which words of the hypothesis and the reference are aligned to each other by an edit distance, and which differ.
#[derive(Default)]
struct Alignment {
    /// For each word of the reference, the position after the word of the hypothesis that it is aligned to.
    after: Vec<usize>,
    wrong_words: Vec<bool>,
    wrong_reference: Vec<bool>,
}

impl Alignment {
    /// Whether a shift can help: there are wrong words in both places, and the words are not already at the target.
    fn allows(&self, start: usize, target: usize, length: usize) -> bool {
        let any = |wrong: &[bool], from| wrong.iter().skip(from).take(length).any(|&wrong| wrong);
        let Some(&after) = self.after.get(target) else {
            return false;
        };
        any(&self.wrong_words, start)
            && any(&self.wrong_reference, target)
            && !(start < after && after <= start + length)
    }

    /// The positions to which words that belong at `target` of the reference may move: before the word that is aligned
    /// to it, or after the word that is aligned to each word of the run.
    fn positions(&self, target: usize, length: usize) -> impl Iterator<Item = usize> + '_ {
        let before = match target.checked_sub(1) {
            Some(before) => self.after.get(before).copied(),
            None => Some(0),
        };
        let within = self.after.iter().skip(target).take(length).copied();
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
        // One shift is needed.
        assert_close(ter(&[pair("c d a b", &["a b c d"])]), 25.0, 1e-12);
        // The closest reference needs one insertion, which is divided by the average length.
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
