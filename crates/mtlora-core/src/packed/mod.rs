//! Matrices that are kept packed: in 4 to 16 bits a value, with scales for blocks of values, as GGUF files and bitsandbytes have
//! them. They are unpacked where they are multiplied, a panel at a time in the processor's caches, and never as a whole.
//!
//! A format is one file here, and a line in `formats.rs`. Values are unpacked in groups of [`GROUP`] neighbours of a row.

mod formats;
mod halves;
mod k_quants;
mod matrix;
pub(crate) mod nf4;
mod q6_k;
mod q8_0;
mod small;
#[cfg(feature = "flex")]
mod tensor;
pub(crate) mod words;

use burn::tensor::{DType, Device, Tensor, TensorData};
pub use formats::{GROUP, PackedFormat};
pub use matrix::{PackedError, PackedMatrix};

use crate::visit::Container;

pub(crate) use formats::Packing;
#[cfg(feature = "flex")]
pub(crate) use formats::WithPacking;
use formats::{blocks, half_at};
#[cfg(feature = "flex")]
pub(crate) use matrix::PackedView;
#[cfg(all(feature = "flex", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use matrix::whole_groups;
#[cfg(feature = "flex")]
pub(crate) use tensor::view;
pub(crate) use tensor_or_dense::{each_part, to_tensor};

/// All values of a packed parameter as a tensor; `None` for any other tensor.
pub(crate) fn dense<const D: usize>(tensor: &Tensor<D>) -> Option<Tensor<D>> {
    words::dense(tensor).or_else(|| tensor_or_dense::dense(tensor))
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
