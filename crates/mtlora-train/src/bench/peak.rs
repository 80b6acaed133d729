//! What the processor can do at most.

use std::hint::black_box;
use std::time::Instant;

use mtlora_core::BaseDtype;
use pulp::{Arch, Simd, WithSimd};

/// Sums that run side by side: enough to hide the latency of two units, few enough for the
/// registers of every processor.
const SUMS: usize = 12;
/// Multiply-adds of each sum between two looks at the clock.
const LENGTH: usize = 1 << 22;
/// The best of this number of tries counts, since other programs only ever slow it down.
const TRIES: usize = 8;

/// The most multiply-adds that all threads of rayon's pool make together, as billions of operations a
/// second (each is two): a loop that does nothing else, on registers. In bfloat16 for a base in it,
/// where the processor multiplies pairs of them (`vdpbf16ps`); else in 32-bit floats.
pub fn peak_gflops(base_dtype: BaseDtype) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if base_dtype == BaseDtype::Bf16 && pairs::available() {
        return best_of(pairs::multiply_add);
    }
    best_of(multiply_add)
}

/// `work`, on each thread, makes `LENGTH` multiply-adds of `SUMS` registers, and says of how many
/// products a register is.
fn best_of(work: fn() -> usize) -> f64 {
    let tries = (0..TRIES).map(|_| {
        let start = Instant::now();
        let products: usize = rayon::broadcast(|_| work()).iter().sum();
        (2 * products * SUMS * LENGTH) as f64 / start.elapsed().as_secs_f64()
    });
    tries.fold(0.0, f64::max) / 1e9
}

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

/// The same with pairs of bfloat16, which pulp does not have.
#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_reduce_add_ps, _mm512_set1_epi32,
        _mm512_set1_ps,
    };
    use std::hint::black_box;

    use super::{LENGTH, SUMS};

    /// Pairs in a register.
    pub(super) const LANES: usize = 16;

    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
    }

    pub(super) fn multiply_add() -> usize {
        assert!(available());
        // SAFETY: the processor has the instructions.
        black_box(unsafe { sum() });
        2 * LANES
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn sum() -> f32 {
        // 1 and -1, which add nothing to a sum.
        let [ones, signs] = [0x3f80_3f80_u32, 0xbf80_3f80].map(|pair| {
            let pairs = _mm512_set1_epi32(black_box(pair).cast_signed());
            // SAFETY: both are 512 bits wide, and every pattern of them is a value.
            unsafe { std::mem::transmute::<__m512i, __m512bh>(pairs) }
        });
        let mut sums: [_; SUMS] =
            std::array::from_fn(|which| _mm512_set1_ps(black_box(which as f32)));
        for _ in 0..LENGTH {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, ones, signs);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How fast a processor is is measured, and not tested: some multiply pairs no faster than single numbers.
    #[test]
    fn a_rate_is_found_in_each_precision() {
        for base_dtype in BaseDtype::ALL {
            let found = peak_gflops(base_dtype);
            assert!(found.is_finite() && found > 0.0, "{base_dtype}: {found}");
        }
    }

    /// Halved and raised by a half again and again, each sum goes to 1.
    #[test]
    fn the_products_of_single_numbers_are_made() {
        let (lanes, sum) = Arch::new().dispatch(MultiplyAdd);
        assert!(lanes.is_power_of_two(), "{lanes}");
        assert_eq!(sum, (lanes * SUMS) as f32);
        assert_eq!(multiply_add(), lanes);
    }

    /// Each lane of sum `n` starts at `n`, and pairs that cancel add nothing to it.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_products_of_pairs_are_made() {
        if !pairs::available() {
            // There is nothing to run on this processor, whose rate is that of single numbers.
            return;
        }
        // SAFETY: the processor has the instructions.
        let sum = unsafe { pairs::sum() };
        assert_eq!(sum, (pairs::LANES * SUMS * (SUMS - 1) / 2) as f32);
        // A pair is two products.
        assert_eq!(pairs::multiply_add(), 2 * pairs::LANES);
    }
}
