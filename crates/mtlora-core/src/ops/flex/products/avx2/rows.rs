//! The left matrix and how it is packed.

use std::arch::x86_64::{
    __m256, _CMP_UNORD_Q, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi32, _mm256_and_si256,
    _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_set1_epi32,
    _mm256_setzero_ps, _mm256_srli_epi32,
};
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::super::aligned::Aligned;
use super::kernel::{LANES, ROWS, Rows};
use super::transpose::transposed;
use super::weights::floats;
use crate::ops::flex::instructions::Avx2;

/// Blocks of rows that a task packs.
const TOGETHER: usize = 8;
/// How many elements ahead of those that are packed are prefetched in each row.
const AHEAD: usize = 128;

/// The rows in blocks: of each, column after column, and below the last row zeros; rounded to bfloat16 if `rounds`.
pub(super) fn pack(_avx2: Avx2, left: &[f32], inner: usize, rounds: bool) -> Aligned<Rows> {
    let size = inner * left.len().div_ceil(inner * ROWS);
    let mut packed = Aligned::with_capacity(size);
    packed.memory()[..size]
        .par_chunks_mut(inner * TOGETHER)
        .zip(left.par_chunks(inner * ROWS * TOGETHER))
        .for_each(|(packed, left)| {
            for (packed, rows) in packed.chunks_mut(inner).zip(left.chunks(inner * ROWS)) {
                // SAFETY: `_avx2` proves that the processor has the instructions.
                unsafe {
                    if rounds {
                        pack_block::<true>(packed, rows, inner);
                    } else {
                        pack_block::<false>(packed, rows, inner);
                    }
                }
            }
        });
    // SAFETY: each block has `inner` columns, and all of them have been written.
    unsafe { packed.set_len(size) };
    packed
}

/// Packs a block of at most [`ROWS`] rows.
#[target_feature(enable = "avx2")]
fn pack_block<const ROUNDS: bool>(packed: &mut [MaybeUninit<Rows>], rows: &[f32], inner: usize) {
    let squares = packed.chunks_mut(LANES);
    for (packed, first) in squares.zip((0..inner).step_by(LANES)) {
        let mut square = [_mm256_setzero_ps(); LANES];
        for (register, row) in square.iter_mut().zip(rows.chunks_exact(inner)) {
            let place = row.as_ptr().wrapping_add(first + AHEAD);
            _mm_prefetch::<_MM_HINT_T0>(place.cast());
            let values = floats(&row[first..inner.min(first + LANES)]);
            *register = if ROUNDS { rounded(values) } else { values };
        }
        for (packed, turned) in packed.iter_mut().zip(&transposed(square)) {
            let turned: [f32; LANES] = pulp::cast(*turned);
            let mut rows = [0.0; ROWS];
            rows.copy_from_slice(&turned[..ROWS]);
            packed.write(rows);
        }
    }
}

/// Rounded to the nearest bfloat16, ties to even. NaN stays NaN.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn rounded(values: __m256) -> __m256 {
    let bits = _mm256_castps_si256(values);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    let upper = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
    let nearest = _mm256_and_si256(_mm256_add_epi32(bits, half), upper);
    let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
    _mm256_blendv_ps(_mm256_castsi256_ps(nearest), values, nan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::bf16;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounds_as_half_does(bits: [u32; LANES]) {
            if Avx2::detect().is_none() {
                return Ok(());
            }
            let values = bits.map(f32::from_bits);
            // SAFETY: the processor has the instructions.
            let found: [f32; LANES] = unsafe { pulp::cast(rounded(pulp::cast(values))) };
            for (found, x) in found.into_iter().zip(values) {
                let expected = bf16::from_f32(x).to_f32();
                prop_assert!(
                    found == expected || found.is_nan() && expected.is_nan(),
                    "{} became {}", x, found
                );
            }
        }
    }
}
