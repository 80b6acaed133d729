/// The processor has AVX2, FMA and the bit manipulation that comes with them.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Avx2(());

impl Avx2 {
    /// The proof, if the processor has the instructions.
    #[inline]
    pub(in crate::ops) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        has.then_some(Self(()))
    }
}
