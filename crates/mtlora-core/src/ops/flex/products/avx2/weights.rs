//! How weights are widened to 32-bit floats.

use std::arch::x86_64::{
    __m128i, __m256, _mm_loadl_epi64, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_loadu_ps, _mm256_mul_ps, _mm256_slli_epi32,
};
use std::ops::Range;

use burn::tensor::bf16;

use super::super::padded::padded;
use super::super::weights::{Bf16, Floats, Int8, IntegerRow, Weights};
use super::kernel::LANES;

/// Weights that these kernels read.
pub(in crate::ops::flex) trait Lanes: Weights {
    /// At most [`LANES`] values of a row, and zeros after them.
    ///
    /// # Safety
    /// The processor has AVX2.
    unsafe fn lanes(row: Self::Row, columns: Range<usize>) -> __m256;

    /// [`LANES`] values of a row.
    ///
    /// # Safety
    /// The processor has AVX2, and the row has the values.
    unsafe fn whole(row: Self::Row, first: usize) -> __m256;

    /// Where a value lies, or would lie if the matrix were larger.
    fn place(self, at: usize) -> *const i8;
}

impl<'a> Lanes for Floats<'a> {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn lanes(row: &'a [f32], columns: Range<usize>) -> __m256 {
        floats(&row[columns])
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn whole(row: &'a [f32], first: usize) -> __m256 {
        // SAFETY: as the caller promises.
        unsafe { _mm256_loadu_ps(row.as_ptr().add(first)) }
    }

    #[inline(always)]
    fn place(self, at: usize) -> *const i8 {
        self.0.as_ptr().wrapping_add(at).cast()
    }
}

impl<'a> Lanes for Bf16<'a> {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn lanes(row: &'a [bf16], columns: Range<usize>) -> __m256 {
        let halves: __m128i = pulp::cast(padded::<_, LANES>(&row[columns]));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn whole(row: &'a [bf16], first: usize) -> __m256 {
        // SAFETY: as the caller promises.
        let halves = unsafe { _mm_loadu_si128(row.as_ptr().add(first).cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }

    #[inline(always)]
    fn place(self, at: usize) -> *const i8 {
        self.0.as_ptr().wrapping_add(at).cast()
    }
}

impl<'a> Lanes for Int8<'a> {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn lanes((integers, scales): IntegerRow<'a>, columns: Range<usize>) -> __m256 {
        let bytes = padded::<_, LANES>(&integers[columns.clone()]);
        // SAFETY: the instruction reads the eight bytes of the array.
        let bytes = unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) };
        let integers = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        _mm256_mul_ps(integers, floats(&scales[columns]))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn whole((integers, scales): IntegerRow<'a>, first: usize) -> __m256 {
        // SAFETY: as the caller promises; a row has as many scales as integers.
        let (bytes, scales) = unsafe {
            let bytes = _mm_loadl_epi64(integers.as_ptr().add(first).cast());
            (bytes, _mm256_loadu_ps(scales.as_ptr().add(first)))
        };
        _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), scales)
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
