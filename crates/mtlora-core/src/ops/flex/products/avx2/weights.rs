//! In which precision weights are kept, and how they are widened.

use std::arch::x86_64::{
    __m128i, __m256, _mm_loadl_epi64, _mm256_castsi256_ps, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_mul_ps, _mm256_slli_epi32,
};
use std::ops::Range;

use burn::tensor::bf16;

use super::super::padded::padded;
use super::kernel::LANES;

/// The values of a matrix that lies row after row.
pub(in crate::ops::flex) trait Weights: Copy + Sync {
    /// What is read of a row.
    type Row: Copy;
    /// Whether the factors that they are multiplied with are rounded to bfloat16.
    const ROUNDS: bool;

    /// Whether there are as many values as a matrix with these rows and columns has.
    fn fill(self, sides: [usize; 2]) -> bool;

    /// The row with this index, of `width` values.
    fn row(self, index: usize, width: usize) -> Self::Row;

    /// At most [`LANES`] values of a row, and zeros after them.
    ///
    /// # Safety
    /// The processor has AVX2.
    unsafe fn lanes(row: Self::Row, columns: Range<usize>) -> __m256;

    /// Where a value lies, or would lie if the matrix were larger.
    fn place(self, at: usize) -> *const i8;
}

/// 32-bit floats.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Floats<'a>(pub(in crate::ops::flex) &'a [f32]);

impl<'a> Weights for Floats<'a> {
    type Row = &'a [f32];
    const ROUNDS: bool = false;

    fn fill(self, [rows, columns]: [usize; 2]) -> bool {
        self.0.len() == rows * columns
    }

    #[inline(always)]
    fn row(self, index: usize, width: usize) -> &'a [f32] {
        &self.0[index * width..][..width]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn lanes(row: &'a [f32], columns: Range<usize>) -> __m256 {
        floats(&row[columns])
    }

    #[inline(always)]
    fn place(self, at: usize) -> *const i8 {
        self.0.as_ptr().wrapping_add(at).cast()
    }
}

/// Upper halves of 32-bit floats.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Bf16<'a>(pub(in crate::ops::flex) &'a [bf16]);

impl<'a> Weights for Bf16<'a> {
    type Row = &'a [bf16];
    const ROUNDS: bool = true;

    fn fill(self, [rows, columns]: [usize; 2]) -> bool {
        self.0.len() == rows * columns
    }

    #[inline(always)]
    fn row(self, index: usize, width: usize) -> &'a [bf16] {
        &self.0[index * width..][..width]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn lanes(row: &'a [bf16], columns: Range<usize>) -> __m256 {
        let halves: __m128i = pulp::cast(padded::<_, LANES>(&row[columns]));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }

    #[inline(always)]
    fn place(self, at: usize) -> *const i8 {
        self.0.as_ptr().wrapping_add(at).cast()
    }
}

/// Integers, each of which stands for itself times a scale: that of its column, and of its `block` rows.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Int8<'a> {
    pub(in crate::ops::flex) integers: &'a [i8],
    pub(in crate::ops::flex) scales: &'a [f32],
    pub(in crate::ops::flex) block: usize,
}

impl<'a> Weights for Int8<'a> {
    type Row = (&'a [i8], &'a [f32]);
    const ROUNDS: bool = false;

    fn fill(self, [rows, columns]: [usize; 2]) -> bool {
        self.integers.len() == rows * columns
            && self.scales.len() >= rows.div_ceil(self.block) * columns
    }

    #[inline(always)]
    fn row(self, index: usize, width: usize) -> Self::Row {
        let integers = &self.integers[index * width..][..width];
        let scales = &self.scales[index / self.block * width..][..width];
        (integers, scales)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn lanes((integers, scales): Self::Row, columns: Range<usize>) -> __m256 {
        let bytes = padded::<_, LANES>(&integers[columns.clone()]);
        // SAFETY: the instruction reads the eight bytes of the array.
        let bytes = unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) };
        let integers = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        _mm256_mul_ps(integers, floats(&scales[columns]))
    }

    #[inline(always)]
    fn place(self, at: usize) -> *const i8 {
        self.integers.as_ptr().wrapping_add(at)
    }
}

/// At most [`LANES`] floats, and zeros after them.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn floats(values: &[f32]) -> __m256 {
    pulp::cast(padded::<_, LANES>(values))
}
