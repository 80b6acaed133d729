use super::avx2::Avx2;

/// The processor has AVX-512 with the instructions for bytes, words and double words, also on shorter registers, and
/// all that [`Avx2`] proves.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Avx512(());

impl Avx512 {
    /// The proof, if the processor has the instructions.
    #[inline]
    pub(in crate::ops) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        (has && Avx2::detect().is_some()).then_some(Self(()))
    }
}
