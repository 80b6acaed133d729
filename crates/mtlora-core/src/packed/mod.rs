//! Matrices that are kept packed: in 4 to 16 bits a value, with scales for blocks of values, as GGUF files and bitsandbytes have
//! them. They are unpacked where they are multiplied, a panel at a time in the processor's caches, and never as a whole.
//!
//! A format is one file here, and a line in [`formats!`](self), which gives it its number and its name. Values are unpacked in
//! groups of [`GROUP`] neighbours of a row.

mod halves;
mod k_quants;
mod matrix;
pub(crate) mod nf4;
mod q6_k;
mod q8_0;
mod small;
#[cfg(feature = "flex")]
mod tensor;

use burn::tensor::{DType, Device, Tensor, TensorData};
pub use matrix::{PackedError, PackedMatrix};

use crate::visit::Container;

#[cfg(feature = "flex")]
pub(crate) use matrix::PackedView;
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub(crate) use matrix::whole_groups;
#[cfg(feature = "flex")]
pub(crate) use tensor::view;
pub(crate) use tensor_or_dense::{dense, each_part, to_tensor};

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
            fn unpack_groups(self, bytes: &[u8], first: usize, out: &mut [f32]) {
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
fn blocks(values: usize, block: usize, bytes: usize) -> Option<usize> {
    values.is_multiple_of(block).then(|| values / block * bytes)
}

/// The 16-bit float that begins at a byte.
#[inline(always)]
fn half_at(bytes: &[u8], at: usize) -> f32 {
    burn::tensor::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// A quantized tensor's values, as Burn or a packed format has them; any other tensor as it is.
pub(crate) fn unquantized<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::QFloat(_) => dense(&tensor).unwrap_or_else(|| tensor.dequantize()),
        _ => tensor,
    }
}

/// The sides of a parameter with this matrix: a linear layer's is its transpose, `[in, out]`, and an embedding's is the matrix,
/// `[vocabulary, width]`.
pub(crate) fn sides_of_parameter(matrix: &PackedMatrix, container: Container) -> [usize; 2] {
    let [rows, columns] = matrix.sides();
    if is_turned(container) {
        [columns, rows]
    } else {
        [rows, columns]
    }
}

/// Whether such a module has the transpose of its packed matrix.
fn is_turned(container: Container) -> bool {
    container != Container::Embedding
}

/// The parameter with all its values, on a device that keeps nothing packed.
fn with_all_values(matrix: &PackedMatrix, container: Container, device: &Device) -> Tensor<2> {
    let data = TensorData::new(matrix.values(), matrix.sides());
    let tensor = Tensor::<2>::from_data(data, device);
    if is_turned(container) {
        tensor.transpose()
    } else {
        tensor
    }
}

/// The parameter's tensor on a device that keeps it packed.
#[cfg(feature = "flex")]
mod tensor_or_dense {
    pub(crate) use super::tensor::{dense, each_part, to_tensor};
}

/// No device of this build keeps matrices packed.
#[cfg(not(feature = "flex"))]
mod tensor_or_dense {
    use burn::tensor::{Device, Tensor};

    use super::PackedMatrix;
    use crate::visit::Container;

    pub(crate) fn to_tensor(
        matrix: PackedMatrix,
        container: Container,
        device: &Device,
    ) -> Tensor<2> {
        super::with_all_values(&matrix, container, device)
    }

    pub(crate) fn dense<const D: usize>(_tensor: &Tensor<D>) -> Option<Tensor<D>> {
        None
    }

    pub(crate) fn each_part<const D: usize>(
        _tensor: &Tensor<D>,
        _then: &mut dyn FnMut(usize, &[u8]),
    ) -> bool {
        false
    }
}
