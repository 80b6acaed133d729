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

    /// The largest number of places of a row.
    pub fn longest(&self) -> usize {
        let lengths = self.offsets.windows(2).map(|pair| pair[1] - pair[0]);
        lengths.max().unwrap_or(0)
    }
}
