//! Dropout whose mask is a function of a seed and an element's place, so that it is not held: the
//! backward pass makes it again.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, TensorData};

/// Which elements are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeededDropout {
    /// The probability with which an element is zero; the others are divided by one minus it.
    pub prob: f64,
    /// One seed makes one mask.
    pub seed: u64,
}

/// A mask as the numbers that its entries are computed from.
pub(in crate::ops) struct MaskParts {
    /// The lower half of the seed, which is added to the place.
    pub low: u32,
    /// The upper half.
    pub high: u32,
    /// Of the 2^32 values that can be drawn, those from here on are kept.
    pub bound: u32,
    /// What is kept is multiplied with it.
    pub scale: f32,
}

impl SeededDropout {
    #[inline(always)]
    pub(in crate::ops) fn parts(self) -> MaskParts {
        MaskParts {
            low: self.seed as u32,
            high: (self.seed >> 32) as u32,
            bound: (self.prob * f64::from(u32::MAX)) as u32,
            scale: (1.0 / (1.0 - self.prob)) as f32,
        }
    }

    /// The dropout whose mask is this one's from the place `first` on.
    pub(in crate::ops) fn starting_at(self, first: usize) -> Self {
        let low = (self.seed as u32).wrapping_add(first as u32);
        let seed = (self.seed & !u64::from(u32::MAX)) | u64::from(low);
        Self { seed, ..self }
    }

    /// Entries of the mask from the place `first` on: zero, or `1 / (1 - prob)`.
    #[inline(always)]
    pub(crate) fn fill(self, mask: &mut [f32], first: usize) {
        let MaskParts {
            low,
            high,
            bound,
            scale,
        } = self.parts();
        for (index, entry) in (0u32..).zip(mask) {
            let place = (first as u32).wrapping_add(index);
            let drawn = mixed(mixed(place.wrapping_add(low)) ^ high);
            *entry = if drawn >= bound { scale } else { 0.0 };
        }
    }

    /// The mask as a tensor of that shape.
    fn mask<B: Backend>(self, shape: Shape, like: &FloatTensor<B>) -> FloatTensor<B> {
        let mut mask = vec![0.0; shape.num_elements()];
        self.fill(&mut mask, 0);
        let data = TensorData::new(mask, shape.to_vec()).convert_dtype(like.dtype());
        B::float_from_data(data, &like.device())
    }
}

/// A bijection that mixes all bits: the `lowbias32` of Wellons' hash-prospector.
#[inline(always)]
fn mixed(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// `x * mask`, which is linear: the backward pass is the same.
pub(in crate::ops) fn forward<B: Backend>(
    x: FloatTensor<B>,
    dropout: SeededDropout,
) -> FloatTensor<B> {
    let mask = dropout.mask::<B>(x.shape(), &x);
    B::float_mul(x, mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(prob: f64, seed: u64, entries: usize) -> Vec<f32> {
        let mut mask = vec![f32::NAN; entries];
        SeededDropout { prob, seed }.fill(&mut mask, 0);
        mask
    }

    #[test]
    fn the_share_and_the_mean_are_as_wanted() {
        const ENTRIES: usize = 200_000;
        for (prob, seed) in [(0.1, 1), (0.5, 2), (0.9, u64::MAX)] {
            let mask = mask(prob, seed, ENTRIES);
            let dropped = mask.iter().filter(|x| **x == 0.0).count() as f64;
            let deviation = (prob * (1.0 - prob) / ENTRIES as f64).sqrt();
            assert!(
                (dropped / ENTRIES as f64 - prob).abs() < 5.0 * deviation,
                "{prob}"
            );
            let mean: f64 = mask.iter().map(|x| f64::from(*x)).sum::<f64>() / ENTRIES as f64;
            assert!(
                (mean - 1.0).abs() < 5.0 * deviation / (1.0 - prob),
                "{prob}"
            );
        }
    }

    #[test]
    fn neighbours_and_seeds_are_independent() {
        let masks = [3, 4, 3 << 32].map(|seed| mask(0.5, seed, 50_000));
        let agree = |a: &[f32], b: &[f32]| {
            let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
            same as f64 / a.len().min(b.len()) as f64
        };
        for (a, b) in [
            (&masks[0][..], &masks[1][..]),
            (&masks[0], &masks[2]),
            (&masks[0], &masks[0][1..]),
            (&masks[0], &masks[0][64..]),
        ] {
            assert!((agree(a, b) - 0.5).abs() < 0.02);
        }
    }

    #[test]
    fn a_part_of_a_mask_is_that_part() {
        let whole = mask(0.3, 9, 100);
        let mut part = vec![f32::NAN; 20];
        let dropout = SeededDropout { prob: 0.3, seed: 9 };
        dropout.fill(&mut part, 70);
        assert_eq!(part, whole[70..90]);
        part.fill(f32::NAN);
        dropout.starting_at(70).fill(&mut part, 0);
        assert_eq!(part, whole[70..90]);
    }
}
