use std::arch::x86_64::__cpuid;
use std::sync::OnceLock;

use super::avx512::Avx512;

/// The processor multiplies pairs of bfloat16, beside all that [`Avx512`] proves.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    /// The proof, if the processor has the instructions.
    #[inline]
    pub(in crate::ops) fn detect() -> Option<Self> {
        let avx512 = Avx512::detect()?;
        is_x86_feature_detected!("avx512bf16").then_some(Self(avx512))
    }

    /// The part of the proof that is about AVX-512 alone.
    #[cfg(feature = "flex")]
    pub(in crate::ops) fn avx512(self) -> Avx512 {
        self.0
    }

    /// Whether products of pairs are faster than those of as many 32-bit floats. They take half the time on AMD's processors
    /// (measured on a Zen 4). On Intel's they take twice the time (measured on a Xeon with AMX: 236 GFLOP/s in pairs, and
    /// 482 in 32-bit floats).
    pub(in crate::ops) fn is_fast(self) -> bool {
        static FAST: OnceLock<bool> = OnceLock::new();
        *FAST.get_or_init(|| {
            let maker = __cpuid(0);
            let words = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes);
            multiplies_pairs_fast(words.as_flattened())
        })
    }
}

/// The same for the processors of a maker, by its name in CPUID.
fn multiplies_pairs_fast(maker: &[u8]) -> bool {
    maker != b"GenuineIntel"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_slow_on_intels_processors() {
        assert!(!multiplies_pairs_fast(b"GenuineIntel"));
        assert!(multiplies_pairs_fast(b"AuthenticAMD"));
    }
}
