/// The processor has NEON with 64-bit ARM's fused multiply-add: all that Rust's programs for 64-bit ARM run on do.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Neon(());

impl Neon {
    /// The proof, if the processor has the instructions.
    #[inline]
    pub(in crate::ops) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}
