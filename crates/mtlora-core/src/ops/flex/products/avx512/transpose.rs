use std::arch::x86_64::{
    __m512i, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::kernel::LANES;

/// A square of 32-bit units, turned: in rounds that swap what lies 1, 2, and then 4 and 8 apart.
// Loops over indices: closures would not be compiled for AVX-512.
#[inline]
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f")]
pub(in super::super) fn transposed(rows: &[__m512i; LANES]) -> [__m512i; LANES] {
    let mut pairs = [_mm512_setzero_si512(); LANES];
    for at in 0..LANES / 2 {
        pairs[2 * at] = _mm512_unpacklo_epi32(rows[2 * at], rows[2 * at + 1]);
        pairs[2 * at + 1] = _mm512_unpackhi_epi32(rows[2 * at], rows[2 * at + 1]);
    }
    let mut fours = [_mm512_setzero_si512(); LANES];
    for q in 0..4 {
        for half in 0..2 {
            let (upper, lower) = (pairs[4 * q + half], pairs[4 * q + half + 2]);
            fours[4 * q + 2 * half] = _mm512_unpacklo_epi64(upper, lower);
            fours[4 * q + 2 * half + 1] = _mm512_unpackhi_epi64(upper, lower);
        }
    }
    // Now the quarter `c` of `fours[4 q + r]` is the column `4 c + r` of the rows `4 q` to `4 q + 3`.
    let mut columns = [_mm512_setzero_si512(); LANES];
    for r in 0..4 {
        let [a, b] = [fours[r], fours[4 + r]];
        let [c, d] = [fours[8 + r], fours[12 + r]];
        // The quarters 0 and 2, and 1 and 3, of two.
        let even = [
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0x88>(c, d),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<0xdd>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(c, d),
        ];
        columns[r] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        columns[4 + r] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        columns[8 + r] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        columns[12 + r] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        if crate::ops::flex::instructions::Avx512::detect().is_none() {
            return;
        }
        let at = |row: usize, column: usize| (row * 100 + column) as u32;
        let rows: [[u32; LANES]; LANES] =
            std::array::from_fn(|row| std::array::from_fn(|column| at(row, column)));
        // SAFETY: the processor has the instructions.
        let found = unsafe { transposed(&pulp::cast(rows)) };
        let found: [[u32; LANES]; LANES] = pulp::cast(found);
        let expected: [[u32; LANES]; LANES] =
            std::array::from_fn(|row| std::array::from_fn(|column| at(column, row)));
        assert_eq!(found, expected);
    }
}
