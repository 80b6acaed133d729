use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::{CHUNK, tensor};

/// A bijection that mixes all bits: the `lowbias32` of Wellons' hash-prospector.
#[inline(always)]
fn mixed(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// [`crate::ops::MtLoraBackend::dropout_mask`]: an entry depends on the seed and its place only, so that
/// threads draw their parts on their own.
pub(crate) fn dropout_mask(entries: usize, prob: f64, seed: u64) -> FlexTensor {
    let (low, high) = (seed as u32, (seed >> 32) as u32);
    let scale = (1.0 / (1.0 - prob)) as f32;
    // Of the 2^32 values, those from here on are kept.
    let bound = (prob * f64::from(u32::MAX)) as u32;
    let mut mask = vec![0.0; entries];
    mask.par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(chunk, mask)| {
            let first = (chunk * CHUNK) as u32;
            pulp::Arch::new().dispatch(|| {
                for (index, entry) in (0u32..).zip(mask.iter_mut()) {
                    let place = first.wrapping_add(index);
                    let drawn = mixed(mixed(place.wrapping_add(low)) ^ high);
                    *entry = if drawn >= bound { scale } else { 0.0 };
                }
            });
        });
    tensor(mask, Shape::from([entries]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::flex::values;

    #[test]
    fn the_share_and_the_mean_are_as_wanted() {
        const ENTRIES: usize = 200_000;
        for (prob, seed) in [(0.1, 1), (0.5, 2), (0.9, u64::MAX)] {
            let mask = dropout_mask(ENTRIES, prob, seed);
            let dropped = values(&mask).iter().filter(|x| **x == 0.0).count() as f64;
            let deviation = (prob * (1.0 - prob) / ENTRIES as f64).sqrt();
            assert!(
                (dropped / ENTRIES as f64 - prob).abs() < 5.0 * deviation,
                "{prob}"
            );
            let mean: f64 =
                values(&mask).iter().map(|x| f64::from(*x)).sum::<f64>() / ENTRIES as f64;
            assert!(
                (mean - 1.0).abs() < 5.0 * deviation / (1.0 - prob),
                "{prob}"
            );
        }
    }

    #[test]
    fn neighbours_and_seeds_are_independent() {
        let masks = [3, 4, 3 << 32].map(|seed| values(&dropout_mask(50_000, 0.5, seed)).to_vec());
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
}
