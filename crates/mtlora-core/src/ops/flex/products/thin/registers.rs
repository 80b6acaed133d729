//! What the kernels need of an instruction set.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::{float32x4_t, vdupq_n_f32, vfmaq_f32, vld1q_f32, vpaddq_f32, vst1q_f32};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm256_add_ps, _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps,
    _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm512_castps512_ps256, _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::kernels::RANKS;
#[cfg(target_arch = "aarch64")]
use crate::ops::flex::instructions::Neon;
#[cfg(target_arch = "x86_64")]
use crate::ops::flex::instructions::{Avx2, Avx512};

/// Registers of floats. A value proves that the processor has the instructions.
///
/// The functions have no instruction set of their own: they become part of a kernel that has it.
pub(super) trait Registers: Copy {
    /// Floats of a register.
    const LANES: usize;
    type Register: Copy;

    fn zero(self) -> Self::Register;

    /// One value in all lanes.
    fn broadcast(self, value: f32) -> Self::Register;

    /// # Safety
    /// There are [`LANES`](Self::LANES) floats.
    unsafe fn load(self, from: *const f32) -> Self::Register;

    /// # Safety
    /// There is room for [`LANES`](Self::LANES) floats.
    unsafe fn store(self, to: *mut f32, register: Self::Register);

    /// `a b + c`, rounded once.
    fn multiply_add(
        self,
        a: Self::Register,
        b: Self::Register,
        c: Self::Register,
    ) -> Self::Register;

    /// The sum of the lanes of each.
    fn sums(self, registers: [Self::Register; RANKS]) -> [f32; RANKS];
}

#[cfg(target_arch = "x86_64")]
impl Registers for Avx512 {
    const LANES: usize = 16;
    type Register = __m512;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions, here and below.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn broadcast(self, value: f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: as above, and as the caller promises.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, register: __m512) {
        // SAFETY: as above, and as the caller promises.
        unsafe { _mm512_storeu_ps(to, register) }
    }

    #[inline(always)]
    fn multiply_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sums(self, registers: [__m512; RANKS]) -> [f32; RANKS] {
        // SAFETY: as above; a processor with AVX-512 has AVX2.
        let mut halves = [unsafe { _mm256_setzero_ps() }; RANKS];
        // A loop: a closure would not be compiled for the instructions.
        for (half, register) in halves.iter_mut().zip(registers) {
            // SAFETY: as above.
            *half = unsafe {
                let upper = _mm512_extractf32x8_ps::<1>(register);
                _mm256_add_ps(_mm512_castps512_ps256(register), upper)
            };
        }
        // SAFETY: as above; a processor with AVX-512 has AVX2.
        unsafe { sums(halves) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Registers for Avx2 {
    const LANES: usize = 8;
    type Register = __m256;

    #[inline(always)]
    fn zero(self) -> __m256 {
        // SAFETY: `self` proves that the processor has the instructions, here and below.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn broadcast(self, value: f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: as above, and as the caller promises.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, register: __m256) {
        // SAFETY: as above, and as the caller promises.
        unsafe { _mm256_storeu_ps(to, register) }
    }

    #[inline(always)]
    fn multiply_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sums(self, registers: [__m256; RANKS]) -> [f32; RANKS] {
        // SAFETY: as above.
        unsafe { sums(registers) }
    }
}

#[cfg(target_arch = "aarch64")]
impl Registers for Neon {
    const LANES: usize = 4;
    type Register = float32x4_t;

    #[inline(always)]
    fn zero(self) -> float32x4_t {
        self.broadcast(0.0)
    }

    #[inline(always)]
    fn broadcast(self, value: f32) -> float32x4_t {
        // SAFETY: every processor that this is compiled for has NEON, here and below.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> float32x4_t {
        // SAFETY: as above, and as the caller promises.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, register: float32x4_t) {
        // SAFETY: as above, and as the caller promises.
        unsafe { vst1q_f32(to, register) }
    }

    #[inline(always)]
    fn multiply_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d, e, f, g, h]: [float32x4_t; RANKS]) -> [f32; RANKS] {
        let mut sums = [0.0; RANKS];
        // SAFETY: as above; the array has room for both registers.
        unsafe {
            let first = vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
            let second = vpaddq_f32(vpaddq_f32(e, f), vpaddq_f32(g, h));
            vst1q_f32(sums.as_mut_ptr(), first);
            vst1q_f32(sums.as_mut_ptr().wrapping_add(4), second);
        }
        sums
    }
}

/// The sum of the lanes of each.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sums([a, b, c, d, e, f, g, h]: [__m256; RANKS]) -> [f32; RANKS] {
    // SAFETY: as the caller promises; the array has room for the register.
    unsafe {
        let first = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        let second = _mm256_hadd_ps(_mm256_hadd_ps(e, f), _mm256_hadd_ps(g, h));
        let lower = _mm256_permute2f128_ps::<0x20>(first, second);
        let upper = _mm256_permute2f128_ps::<0x31>(first, second);
        let mut sums = [0.0; RANKS];
        _mm256_storeu_ps(sums.as_mut_ptr(), _mm256_add_ps(lower, upper));
        sums
    }
}
