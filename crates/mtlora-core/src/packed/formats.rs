//! The formats of packed matrices. [`formats!`](self) gives each its number and its name.

use super::{halves, k_quants, nf4, q6_k, q8_0, small};

/// How many neighbours are unpacked at a time. The width of a packed matrix is a multiple of it.
pub const GROUP: usize = 32;

/// A format: how many bytes it needs, and how a group is unpacked.
pub(crate) trait Packing {
    /// The bytes of a matrix with that many values; `None` where these are not whole blocks.
    fn bytes(values: usize) -> Option<usize>;

    /// The values of some groups, of which `first` is the first one's number in the matrix. `bytes` are the whole matrix'.
    /// `out` has room for whole groups.
    fn unpack(bytes: &[u8], first: usize, out: &mut [f32]);
}

/// Work on a packed matrix, which is compiled for each format.
#[cfg(feature = "flex")]
pub(crate) trait WithPacking {
    fn with<P: Packing>(self);
}

macro_rules! formats {
    ($($(#[$docs:meta])* $name:ident = $text:literal: $packing:ty,)*) => {
        /// How a packed matrix keeps its values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum PackedFormat {
            $($(#[$docs])* $name,)*
        }

        impl PackedFormat {
            /// All of them.
            pub const ALL: &[PackedFormat] = &[$(PackedFormat::$name,)*];

            /// The name, as GGUF has it.
            pub fn name(self) -> &'static str {
                match self { $(PackedFormat::$name => $text,)* }
            }

            /// The bytes of a matrix with that many values; `None` where these are not whole blocks.
            pub fn bytes(self, values: usize) -> Option<usize> {
                match self { $(PackedFormat::$name => <$packing>::bytes(values),)* }
            }

            /// Does the work with this format.
            #[cfg(feature = "flex")]
            pub(crate) fn work(self, work: impl WithPacking) {
                match self { $(PackedFormat::$name => work.with::<$packing>(),)* }
            }

            #[inline(always)]
            pub(super) fn unpack_groups(self, bytes: &[u8], first: usize, out: &mut [f32]) {
                match self { $(PackedFormat::$name => <$packing>::unpack(bytes, first, out),)* }
            }
        }
    };
}

formats! {
    /// 16-bit floats.
    F16 = "F16": halves::F16,
    /// bfloat16.
    Bf16 = "BF16": halves::Bf16,
    /// 8-bit integers, 32 with a scale.
    Q8_0 = "Q8_0": q8_0::Q8_0,
    /// 4-bit integers, 32 with a scale.
    Q4_0 = "Q4_0": small::Small<18>,
    /// 4-bit integers, 32 with a scale and a minimum.
    Q4_1 = "Q4_1": small::Small<20>,
    /// 5-bit integers, 32 with a scale.
    Q5_0 = "Q5_0": small::Small<22>,
    /// 5-bit integers, 32 with a scale and a minimum.
    Q5_1 = "Q5_1": small::Small<24>,
    /// 4-bit integers, 256 with eight scales and minima.
    Q4K = "Q4_K": k_quants::KQuant<144>,
    /// 5-bit integers, 256 with eight scales and minima.
    Q5K = "Q5_K": k_quants::KQuant<176>,
    /// 6-bit integers, 256 with sixteen scales.
    Q6K = "Q6_K": q6_k::Q6K,
    /// bitsandbytes' NF4, 64 with a scale, which is an 8-bit number itself.
    Nf4 = "NF4": nf4::Nf4,
}

/// The bytes of whole blocks.
pub(super) fn blocks(values: usize, block: usize, bytes: usize) -> Option<usize> {
    values.is_multiple_of(block).then(|| values / block * bytes)
}

/// The 16-bit float that begins at a byte.
#[inline(always)]
pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    burn::tensor::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
