#[cfg(feature = "flex")]
use std::arch::aarch64::{float32x4_t, uint16x8_t, vdupq_n_f32, vdupq_n_u16};
#[cfg(feature = "flex")]
use std::arch::asm;
#[cfg(feature = "flex")]
use std::hint::black_box;

use super::neon::Neon;

/// The processor multiplies small matrices of bfloat16 (ARMv8.6's `FEAT_BF16`), beside all that [`Neon`] proves.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct NeonBf16(());

impl NeonBf16 {
    /// The proof, if the processor has the instructions.
    #[inline]
    pub(in crate::ops) fn detect() -> Option<Self> {
        let has = std::arch::is_aarch64_feature_detected!("bf16");
        (has && Neon::detect().is_some()).then_some(Self(()))
    }
}

#[cfg(feature = "flex")]
impl NeonBf16 {
    /// Two rows of four elements of bfloat16, times two columns of four, added to a sum: both columns of the first row, and then
    /// those of the second.
    #[inline(always)]
    pub(in crate::ops) fn multiply_add(
        self,
        rows: uint16x8_t,
        columns: uint16x8_t,
        mut sum: float32x4_t,
    ) -> float32x4_t {
        // Stable Rust has no intrinsic for it.
        // SAFETY: `self` proves that the processor has the instruction, which changes no memory.
        unsafe {
            asm!(
                ".arch_extension bf16",
                "bfmmla {sum:v}.4s, {rows:v}.8h, {columns:v}.8h",
                sum = inout(vreg) sum,
                rows = in(vreg) rows,
                columns = in(vreg) columns,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    /// Multiplies on this thread, over and over, with operands that stay in their registers: as fast as it can. Returns the number
    /// of multiply-adds.
    pub(in crate::ops) fn multiply_repeatedly(self, times: usize) -> usize {
        /// The sums, of which there are enough that the processor need not wait for any.
        const SUMS: usize = 24;
        let bits = black_box(0x3f80_u16);
        // SAFETY: every processor that this is compiled for has NEON.
        let (factors, mut sums) = unsafe { (vdupq_n_u16(bits), [vdupq_n_f32(0.0); SUMS]) };
        for _ in 0..times {
            for sum in &mut sums {
                *sum = self.multiply_add(factors, factors, *sum);
            }
        }
        black_box(sums);
        times * SUMS * 2 * 2 * 4
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn multiply_adds_are_counted() {
        let Some(bf16) = NeonBf16::detect() else {
            return;
        };
        assert_eq!(bf16.multiply_repeatedly(10), 10 * 24 * 16);
        // SAFETY: every processor that this is compiled for has NEON.
        let (ones, sum) = unsafe { (vdupq_n_u16(0x3f80), vdupq_n_f32(0.5)) };
        let sums: [f32; 4] = pulp::cast(bf16.multiply_add(ones, ones, sum));
        assert_eq!(sums, [4.5; 4]);
    }
}
