//! Measures the peak floating-point rate of the processor.

use std::hint::black_box;
use std::time::Instant;

use mtlora_core::{
    BaseDtype, CpuChoice, CpuPath, MatmulPrecision, cpu_multiplies_bf16, cpu_multiply_tiles,
};
use pulp::{Arch, Simd, WithSimd};

/// The number of independent sums: enough to hide the latency of two units, or of the four that 64-bit ARM's fastest have, and
/// few enough for the registers of every processor.
const SUMS: usize = if cfg!(target_arch = "aarch64") {
    24
} else {
    12
};
/// The number of multiply-adds of each sum between two readings of the clock.
const LENGTH: usize = 1 << 22;
/// The number of times that each thread multiplies tiles between two readings of the clock: with AMX, six products of 16 cycles
/// each time, so about a fiftieth of a second.
const TILE_LENGTH: usize = 1 << 19;
/// The number of measurements, of which the fastest counts, because other programs can only slow it down.
const TRIES: usize = 8;

/// The peak rate of multiply-adds of all threads in rayon's pool, in billions of operations per second (a multiply-add
/// is two operations). It is measured with a loop of multiply-adds on registers, of the kind that the kernels use for the
/// base model ([`CpuChoice`]): with AMX, those of tiles, of which 32-bit floats take several ([`MatmulPrecision`]); for one in
/// bfloat16, those of bfloat16 values where there are instructions for them ([`cpu_multiplies_bf16`]); and otherwise
/// those of 32-bit floats, with AVX2 if the kernels are restricted to it.
pub fn peak_gflops(base_dtype: BaseDtype) -> f64 {
    let has_tiles = CpuChoice::read().is_ok_and(|choice| choice.path == CpuPath::Amx);
    if has_tiles {
        return best_of(multiply_tiles) / tile_products(base_dtype) as f64;
    }
    if base_dtype == BaseDtype::Bf16 && cpu_multiplies_bf16() {
        #[cfg(target_arch = "x86_64")]
        return best_of(pairs::multiply_add);
        #[cfg(target_arch = "aarch64")]
        return best_of(multiply_tiles);
    }
    best_of(multiply_add)
}

/// How many products of tiles a product of values takes, as [`MatmulPrecision`] says.
fn tile_products(base_dtype: BaseDtype) -> usize {
    match (base_dtype, MatmulPrecision::chosen()) {
        (BaseDtype::Bf16 | BaseDtype::Int8, _) | (_, MatmulPrecision::Medium) => 1,
        (_, MatmulPrecision::High) => 3,
        (_, MatmulPrecision::Highest) => 6,
    }
}

/// Measures `work`, which returns how many multiply-adds it has made in a thread.
fn best_of(work: fn() -> usize) -> f64 {
    let tries = (0..TRIES).map(|_| {
        let start = Instant::now();
        let products: usize = rayon::broadcast(|_| work()).iter().sum();
        (2 * products) as f64 / start.elapsed().as_secs_f64()
    });
    tries.fold(0.0, f64::max) / 1e9
}

fn multiply_add() -> usize {
    let (lanes, sum) = sums(CpuChoice::read().map(|choice| choice.path).ok());
    black_box(sum);
    lanes * SUMS * LENGTH
}

fn multiply_tiles() -> usize {
    cpu_multiply_tiles(TILE_LENGTH).unwrap_or(0)
}

/// The sums with the instructions of a path, and the number of floats in a register. Without a path, or on the portable
/// one, where the `gemm` crate computes products, it is the widest registers that the processor has.
fn sums(path: Option<CpuPath>) -> (usize, f32) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(CpuPath::Avx2), Some(simd)) = (path, pulp::x86::V3::try_new()) {
        return Simd::vectorize(simd, MultiplyAdd);
    }
    let _ = path;
    Arch::new().dispatch(MultiplyAdd)
}

struct MultiplyAdd;

impl WithSimd for MultiplyAdd {
    type Output = (usize, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        // Each sum converges to 1, so that nothing overflows or becomes subnormal. The sums start with different
        // values; otherwise the compiler would merge them.
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

/// The same with pairs of bfloat16 values, which pulp does not support.
#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_reduce_add_ps, _mm512_set1_epi32,
        _mm512_set1_ps,
    };
    use std::hint::black_box;

    use mtlora_core::cpu_multiplies_bf16;

    use super::{LENGTH, SUMS};

    /// The number of pairs in a register.
    pub(super) const LANES: usize = 16;

    pub(super) fn multiply_add() -> usize {
        assert!(cpu_multiplies_bf16());
        // SAFETY: the processor has the instructions, as the function promises.
        black_box(unsafe { sum() });
        2 * LANES * SUMS * LENGTH
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn sum() -> f32 {
        // Pairs of 1 and -1, which leave a sum unchanged.
        let [ones, signs] = [0x3f80_3f80_u32, 0xbf80_3f80].map(|pair| {
            let pairs = _mm512_set1_epi32(black_box(pair).cast_signed());
            // SAFETY: both types are 512 bits wide, and every bit pattern is a valid value.
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

    /// Only the order of magnitude is tested: some processors multiply pairs no faster than single numbers.
    #[test]
    fn the_rate_is_measured_in_each_precision() {
        for base_dtype in BaseDtype::ALL {
            let found = peak_gflops(base_dtype);
            assert!(found.is_finite() && found > 0.0, "{base_dtype}: {found}");
        }
    }

    /// Each sum is repeatedly halved and increased by a half, so that it converges to 1.
    #[test]
    fn products_of_single_numbers_are_computed() {
        for path in CpuPath::available() {
            let (lanes, sum) = sums(Some(path));
            assert!(lanes.is_power_of_two(), "{path}: {lanes}");
            assert_eq!(sum, (lanes * SUMS) as f32, "{path}");
            assert!(path != CpuPath::Avx2 || lanes == 8, "{lanes}");
        }
        assert!(multiply_add().is_multiple_of(SUMS * LENGTH));
    }

    /// Each lane of sum `n` starts at `n` and does not change, because the pairs cancel.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn products_of_pairs_are_computed() {
        if !cpu_multiplies_bf16() {
            // This processor has no such instruction; its rate is that of single numbers.
            return;
        }
        // SAFETY: the processor has the instructions, as the function promises.
        let sum = unsafe { pairs::sum() };
        assert_eq!(sum, (pairs::LANES * SUMS * (SUMS - 1) / 2) as f32);
        // A pair counts as two products.
        assert_eq!(pairs::multiply_add(), 2 * pairs::LANES * SUMS * LENGTH);
    }
}
