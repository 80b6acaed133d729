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
}
