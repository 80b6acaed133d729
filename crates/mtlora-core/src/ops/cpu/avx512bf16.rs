use super::avx512::Avx512;

/// The processor multiplies pairs of bfloat16, beside all that [`Avx512`] proves.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// The proof, if the processor has the instructions.
    #[inline]
    pub(in crate::ops) fn detect() -> Option<Self> {
        let has = Avx512::detect().is_some() && is_x86_feature_detected!("avx512bf16");
        has.then_some(Self(()))
    }
}
