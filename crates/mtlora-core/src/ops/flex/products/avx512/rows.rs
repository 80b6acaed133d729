//! The left matrix and how it is packed.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_UNORD_Q, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi32, _mm512_and_si512,
    _mm512_cmp_ps_mask, _mm512_cvtne2ps_pbh, _mm512_mask_mov_epi32, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_srli_epi32,
};
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::super::aligned::Aligned;
use super::super::padded::padded;
use super::kernel::{Kernel, LANES, ROWS, Rows, Unit};
use super::right::floats;
use super::transpose::transposed;

/// Blocks of rows that a task packs.
const TOGETHER: usize = 4;
/// How many elements ahead of those that are packed are prefetched in each row: the processor does not predict as many
/// rows as a block has.
const AHEAD: usize = 128;

/// The rows in blocks: of each, unit after unit, and below the last row zeros. A tile reads them as they lie. They are
/// rounded to bfloat16 if `rounds`, which is no question for pairs of it.
pub(super) fn pack(left: &[f32], inner: usize, kernel: Kernel, rounds: bool) -> Aligned<Rows> {
    let units = inner.div_ceil(kernel.depth());
    let size = units * left.len().div_ceil(inner * ROWS);
    let mut packed = Aligned::with_capacity(size);
    packed.memory()[..size]
        .par_chunks_mut(units * TOGETHER)
        .zip(left.par_chunks(inner * ROWS * TOGETHER))
        .for_each(|(packed, left)| {
            for (packed, rows) in packed.chunks_mut(units).zip(left.chunks(inner * ROWS)) {
                // SAFETY: `kernel` proves that the processor has the instructions.
                unsafe {
                    match kernel {
                        Kernel::F32(_) if rounds => pack_rounded(packed, rows, inner),
                        Kernel::F32(_) => pack_floats(packed, rows, inner),
                        Kernel::Bf16(_) => pack_pairs(packed, rows, inner),
                    }
                }
            }
        });
    // SAFETY: each block has `units` units, and all of them have been written.
    unsafe { packed.set_len(size) };
    packed
}

/// Defines a function that packs a block of at most [`ROWS`] rows, which differs in how it makes units of
/// `$count` elements or fewer.
macro_rules! pack {
    ($name:ident, $features:literal, $units:ident, $count:expr) => {
        #[target_feature(enable = $features)]
        fn $name(packed: &mut [MaybeUninit<Rows>], rows: &[f32], inner: usize) {
            let squares = packed.chunks_mut(LANES);
            for (packed, first) in squares.zip((0..inner).step_by($count)) {
                let mut square = [_mm512_setzero_si512(); LANES];
                for (register, row) in square.iter_mut().zip(rows.chunks_exact(inner)) {
                    for line in (0..$count).step_by(LANES) {
                        let place = row.as_ptr().wrapping_add(first + AHEAD + line);
                        _mm_prefetch::<_MM_HINT_T0>(place.cast());
                    }
                    *register = $units(&row[first..inner.min(first + $count)]);
                }
                for (packed, turned) in packed.iter_mut().zip(&transposed(&square)) {
                    let turned: [Unit; LANES] = pulp::cast(*turned);
                    let mut rows = [0; ROWS];
                    rows.copy_from_slice(&turned[..ROWS]);
                    packed.write(rows);
                }
            }
        }
    };
}

pack!(pack_floats, "avx512f,avx512bw", floats, LANES);
pack!(pack_rounded, "avx512f,avx512bw", nearest, LANES);
pack!(pack_pairs, "avx512f,avx512bw,avx512bf16", pairs, 2 * LANES);

/// 32-bit floats rounded to the nearest bfloat16, ties to even. NaN stays NaN.
#[inline]
#[target_feature(enable = "avx512f")]
fn nearest(row: &[f32]) -> __m512i {
    let bits = floats(row);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    let nearest = _mm512_and_si512(_mm512_add_epi32(bits, half), upper);
    let values: __m512 = pulp::cast(bits);
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    _mm512_mask_mov_epi32(nearest, nan, bits)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs(row: &[f32]) -> __m512i {
    pulp::cast(rounded(&padded(row)))
}

/// Pairs, rounded to the nearest, ties to even.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(in super::super) fn rounded(row: &[f32; 2 * LANES]) -> [Unit; LANES] {
    let [low, high]: [__m512; 2] = pulp::cast(*row);
    let pairs = _mm512_cvtne2ps_pbh(high, low);
    // SAFETY: both are 512 bits wide, and every pattern of them is a value.
    unsafe { std::mem::transmute(pairs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::flex::instructions::{Avx512, Avx512Bf16};
    use burn::tensor::bf16;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounds_without_its_instruction_as_half_does(bits: [u32; LANES]) {
            if Avx512::detect().is_none() {
                return Ok(());
            }
            let row = bits.map(f32::from_bits);
            // SAFETY: the processor has the instructions.
            let found: [f32; LANES] = unsafe { pulp::cast(nearest(&row)) };
            for (found, x) in found.into_iter().zip(row) {
                let expected = bf16::from_f32(x).to_f32();
                prop_assert!(
                    found == expected || found.is_nan() && expected.is_nan(),
                    "{} became {}", x, found
                );
            }
        }

        #[test]
        fn rounds_as_half_does(bits: [u32; 2 * LANES]) {
            if Avx512Bf16::detect().is_none() {
                return Ok(());
            }
            let row = bits.map(f32::from_bits);
            // SAFETY: the processor has the instructions.
            let found = unsafe { rounded(&row) };
            for (pair, row) in found.iter().zip(row.as_chunks::<2>().0) {
                for (found, x) in [*pair as u16, (*pair >> 16) as u16].into_iter().zip(row) {
                    let (found, expected) = (bf16::from_bits(found), bf16::from_f32(*x));
                    // The instruction takes what is below the normal range for zero.
                    prop_assert!(
                        found == expected
                            || found.is_nan() && expected.is_nan()
                            || !x.is_normal() && found.to_f32() == 0.0,
                        "{} became {}", x, found
                    );
                }
            }
        }
    }
}
