use std::arch::x86_64::{
    __m256, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

use super::kernel::LANES;

/// A square of floats, turned: in rounds that swap what lies 1, 2 and 4 apart.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transposed(rows: [__m256; LANES]) -> [__m256; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    let pairs = [
        _mm256_unpacklo_ps(a, b),
        _mm256_unpackhi_ps(a, b),
        _mm256_unpacklo_ps(c, d),
        _mm256_unpackhi_ps(c, d),
        _mm256_unpacklo_ps(e, f),
        _mm256_unpackhi_ps(e, f),
        _mm256_unpacklo_ps(g, h),
        _mm256_unpackhi_ps(g, h),
    ];
    let [a, b, c, d, e, f, g, h] = pairs;
    // Now the half `c` of each is the column `4 c + r` of four rows.
    let upper = [
        _mm256_shuffle_ps::<0x44>(a, c),
        _mm256_shuffle_ps::<0xee>(a, c),
        _mm256_shuffle_ps::<0x44>(b, d),
        _mm256_shuffle_ps::<0xee>(b, d),
    ];
    let lower = [
        _mm256_shuffle_ps::<0x44>(e, g),
        _mm256_shuffle_ps::<0xee>(e, g),
        _mm256_shuffle_ps::<0x44>(f, h),
        _mm256_shuffle_ps::<0xee>(f, h),
    ];
    [
        _mm256_permute2f128_ps::<0x20>(upper[0], lower[0]),
        _mm256_permute2f128_ps::<0x20>(upper[1], lower[1]),
        _mm256_permute2f128_ps::<0x20>(upper[2], lower[2]),
        _mm256_permute2f128_ps::<0x20>(upper[3], lower[3]),
        _mm256_permute2f128_ps::<0x31>(upper[0], lower[0]),
        _mm256_permute2f128_ps::<0x31>(upper[1], lower[1]),
        _mm256_permute2f128_ps::<0x31>(upper[2], lower[2]),
        _mm256_permute2f128_ps::<0x31>(upper[3], lower[3]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::flex::instructions::Avx2;

    #[test]
    fn rows_become_columns() {
        if Avx2::detect().is_none() {
            return;
        }
        let at = |row: usize, column: usize| (row * 100 + column) as f32;
        let rows: [[f32; LANES]; LANES] =
            std::array::from_fn(|row| std::array::from_fn(|column| at(row, column)));
        // SAFETY: the processor has the instructions.
        let found = unsafe { transposed(pulp::cast(rows)) };
        let found: [[f32; LANES]; LANES] = pulp::cast(found);
        let expected: [[f32; LANES]; LANES] =
            std::array::from_fn(|row| std::array::from_fn(|column| at(column, row)));
        assert_eq!(found, expected);
    }
}
