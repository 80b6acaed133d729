use std::sync::Arc;

/// The places of a key-value cache that each row attends to, in the order of its sequence.
///
/// Rows may share places, as beams with a common beginning do, so that continuing a row several times copies
/// no key and no value. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contexts {
    offsets: Arc<[usize]>,
    slots: Arc<[u32]>,
}

impl Contexts {
    /// Contexts from the places of each row.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let (mut offsets, mut slots) = (vec![0], Vec::new());
        for row in rows {
            slots.extend_from_slice(row);
            offsets.push(slots.len());
        }
        Self {
            offsets: offsets.into(),
            slots: slots.into(),
        }
    }

    /// The places that a row attends to.
    pub fn row(&self, row: usize) -> &[u32] {
        &self.slots[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The same with no more than the last `count` places of each row: what attention within a window sees.
    pub fn last(&self, count: usize) -> Self {
        if self.longest() <= count {
            return self.clone();
        }
        let rows = self.offsets.windows(2).map(|pair| {
            let row = &self.slots[pair[0]..pair[1]];
            &row[row.len().saturating_sub(count)..]
        });
        Self::new(rows)
    }

    /// The largest number of places of a row.
    pub fn longest(&self) -> usize {
        let lengths = self.offsets.windows(2).map(|pair| pair[1] - pair[0]);
        lengths.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_places_of_each_row_are_kept() {
        let contexts = Contexts::new([&[3, 1, 4, 1][..], &[5][..], &[9, 2][..]]);
        let last = contexts.last(2);
        assert_eq!(
            [last.row(0), last.row(1), last.row(2)],
            [&[4, 1][..], &[5], &[9, 2]]
        );
        assert_eq!(contexts.last(4), contexts);
    }
}
