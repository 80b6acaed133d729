//! What the processor can do at most.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};

/// Sums that run beside each other: enough to hide the latency of two units, few enough for the
/// registers of every processor.
const SUMS: usize = 12;
/// Multiply-adds of each sum between two looks at the clock.
const LENGTH: usize = 1 << 22;
/// The best of so many tries counts, since other programs only ever slow it down.
const TRIES: usize = 8;

/// The most multiply-adds in 32-bit floats that all threads of rayon's pool make together, as
/// billions of operations a second (each is two): a loop that does nothing else, on registers.
pub fn peak_gflops() -> f64 {
    let tries = (0..TRIES).map(|_| {
        let start = Instant::now();
        let lanes: usize = rayon::broadcast(|_| multiply_add()).iter().sum();
        (2 * lanes * SUMS * LENGTH) as f64 / start.elapsed().as_secs_f64()
    });
    tries.fold(0.0, f64::max) / 1e9
}

/// Makes `LENGTH` multiply-adds of each of `SUMS` registers, and says of how many lanes these are.
fn multiply_add() -> usize {
    let (lanes, sum) = Arch::new().dispatch(MultiplyAdd);
    black_box(sum);
    lanes
}

struct MultiplyAdd;

impl WithSimd for MultiplyAdd {
    type Output = (usize, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        // Each goes to 1; nothing overflows, and no number is too small to be normal. They start
        // apart, or the compiler would make one of them for all.
        let (factor, added) = (simd.splat_f32s(0.5), simd.splat_f32s(0.5));
        let mut sums: [S::f32s; SUMS] =
            std::array::from_fn(|which| simd.splat_f32s(black_box(which as f32)));
        for _ in 0..LENGTH {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, added);
            }
        }
        let all = sums[1..]
            .iter()
            .fold(sums[0], |all, sum| simd.add_f32s(all, *sum));
        (S::F32_LANES, simd.reduce_sum_f32s(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_a_processors() {
        let found = peak_gflops();
        // From one slow core to a large server.
        assert!((1.0..100_000.0).contains(&found), "{found}");
        let (lanes, sum) = Arch::new().dispatch(MultiplyAdd);
        assert_eq!(sum, (lanes * SUMS) as f32);
    }
}
