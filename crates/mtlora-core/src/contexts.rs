use std::sync::Arc;

/// What each row of a key-value cache sees: places in the cache, in the sequence's order.
///
/// Rows may share places (beams that begin alike do), so that continuing a row several times copies
/// no key and no value. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contexts {
    offsets: Arc<[usize]>,
    slots: Arc<[u32]>,
}

impl Contexts {
    /// The contexts of rows that see these places each.
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

    /// What a row sees.
    pub fn row(&self, row: usize) -> &[u32] {
        &self.slots[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The most that a row sees.
    pub fn longest(&self) -> usize {
        let lengths = self.offsets.windows(2).map(|pair| pair[1] - pair[0]);
        lengths.max().unwrap_or(0)
    }
}
