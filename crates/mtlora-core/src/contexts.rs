use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The places of a key-value cache that each row attends to, in the order of its sequence.
///
/// Rows may share places, as beams with a common beginning do, so that continuing a row several times copies
/// no key and no value. Cloning is cheap, and clones share what is uploaded to a device.
#[derive(Clone, Debug)]
pub struct Contexts {
    offsets: Arc<[usize]>,
    slots: Arc<[u32]>,
    on_device: Arc<OnceLock<Tensor<1, Int>>>,
}

impl PartialEq for Contexts {
    fn eq(&self, other: &Self) -> bool {
        self.offsets == other.offsets && self.slots == other.slots
    }
}

impl Eq for Contexts {}

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
            on_device: Arc::default(),
        }
    }

    /// The places that a row attends to.
    pub fn row(&self, row: usize) -> &[u32] {
        &self.slots[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The same contexts, each cut to its last `count` places: what attention within a window sees.
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

    /// The contexts in `device`'s memory: where each row's places begin in this tensor, with the end of the last row's, and then
    /// all places, `[rows + 1 + places]`.
    ///
    /// They are uploaded when they are first asked for, and once for all clones, so that the layers of a model share
    /// one tensor per step.
    pub(crate) fn on_device(&self, device: &Device) -> Tensor<1, Int> {
        let device = device.clone().inner();
        let made = self.on_device.get_or_init(|| self.uploaded(&device));
        if made.device() == device {
            made.clone()
        } else {
            self.uploaded(&device)
        }
    }

    fn uploaded(&self, device: &Device) -> Tensor<1, Int> {
        let before = self.offsets.len();
        let begins = self.offsets.iter().map(|offset| (before + offset) as i32);
        let places = self.slots.iter().map(|slot| *slot as i32);
        let numbers: Vec<i32> = begins.chain(places).collect();
        let count = numbers.len();
        Tensor::from_data(TensorData::new(numbers, [count]), device)
    }

    /// The same contexts without the tensor. Operations carry these: a queue that holds an operation must not own
    /// tensors that it does not know of.
    pub(crate) fn on_host(&self) -> Self {
        Self {
            offsets: self.offsets.clone(),
            slots: self.slots.clone(),
            on_device: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clones_share_one_tensor_on_the_device() {
        for named in crate::devices() {
            let contexts = Contexts::new([&[4u32, 7][..], &[9]]);
            let clone = contexts.clone();
            let found = contexts.on_device(&named.device.clone().autodiff());
            let found = found.into_data().convert::<i32>();
            assert_eq!(found.try_to_vec::<i32>().unwrap(), [3, 5, 6, 4, 7, 9]);
            assert!(clone.on_device.get().is_some());
            assert!(contexts.on_host().on_device.get().is_none());
            assert_eq!(contexts.on_host(), clone);
        }
    }

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
