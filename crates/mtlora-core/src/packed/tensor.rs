//! Packed matrices as tensors of burn-flex, which has no type for them.
//!
//! A linear weight is a `Tensor<2>` of `[in, out]`, an embedding one of `[vocabulary, width]`, and a quantized tensor has 8-bit
//! integers and scales. A packed one has the packed bytes in place of the integers, with a footer that names the format. So that
//! no operation of Burn's reads beyond them, the strides are 1 for the packed matrix' rows and 0 for its columns, which also
//! tells a linear weight, the matrix' transpose, from an embedding; so that none computes with them as if they were integers,
//! the scale is not a number. What multiplies weights or looks rows up ([`flex`](crate::ops)) asks for the [`view`] first, and
//! whatever wants values asks for them with [`dense`].

use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::flex::{FlexQTensor, FlexTensor, Layout};
use burn::backend::{
    Autodiff, BackendTensor, DType, DispatchKindConversion, DispatchTensor, Flex, TensorMetadata,
};
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue};
use burn::tensor::{Bytes, Device, Shape, Tensor, TensorData};

use super::{GROUP, PackedFormat, PackedMatrix, PackedView, is_turned, sides_of_parameter};
use crate::visit::Container;

/// The strides of a matrix' transpose.
const TURNED: [isize; 2] = [0, 1];
/// The strides of a matrix.
const AS_IT_IS: [isize; 2] = [1, 0];

/// What the footer begins with; the format's number follows.
const FOOTER: &[u8; 15] = b"mtlora packed \n";

/// A parameter of such a module with this matrix: a linear layer's, `[in, out]`, with one of `[out, in]`, or an embedding's,
/// `[vocabulary, width]`, with one of the same sides. Where the device does not keep matrices packed, it has all values.
pub(crate) fn to_tensor(matrix: PackedMatrix, container: Container, device: &Device) -> Tensor<2> {
    if !crate::ops::capabilities(device).stores_packed {
        return super::with_all_values(&matrix, container, device);
    }
    let format = matrix.format();
    let number = PackedFormat::ALL.iter().position(|other| *other == format);
    let shape = Shape::from(sides_of_parameter(&matrix, container));
    let strides = match is_turned(container) {
        true => TURNED,
        false => AS_IT_IS,
    };
    // The matrix' own memory.
    let mut bytes: Vec<i8> = pulp::bytemuck::allocation::cast_vec(matrix.into_bytes());
    bytes.reserve_exact(FOOTER.len() + 1);
    bytes.extend(FOOTER.iter().map(|byte| *byte as i8));
    bytes.push(number.unwrap_or_default() as i8);
    let layout = Layout::new(shape, strides.to_vec(), 0);
    let tensor = FlexTensor::new(Bytes::from_elems(bytes), layout, DType::I8);
    let scheme = QuantScheme::default()
        .with_value(QuantValue::Q8S)
        .with_store(QuantStore::Native);
    let packed = FlexQTensor::new(tensor, scheme, vec![f32::NAN], None);
    let dispatch = if device.is_autodiff() {
        <DispatchTensor as DispatchKindConversion<Autodiff<Flex, NoCheckpointing>>>::from_backend(
            BackendTensor::Quantized(packed),
        )
    } else {
        <DispatchTensor as DispatchKindConversion<Flex>>::from_backend(BackendTensor::Quantized(
            packed,
        ))
    };
    Tensor::from_dispatch(dispatch)
}

/// The packed matrix in a tensor's memory, if it has one.
pub(crate) fn view(tensor: &FlexQTensor) -> Option<PackedView<'_>> {
    let strides = tensor.tensor().layout().strides();
    if ![TURNED, AS_IT_IS].iter().any(|known| strides == known) {
        return None;
    }
    let turned = strides == TURNED;
    let bytes: &[u8] = pulp::bytemuck::cast_slice(tensor.tensor().storage::<i8>());
    let (number, bytes) = bytes.split_last()?;
    let (bytes, footer) = bytes.split_last_chunk::<15>()?;
    let format = *PackedFormat::ALL.get(usize::from(*number))?;
    let shape = tensor.shape();
    let sides = match turned {
        true => [shape[1], shape[0]],
        false => [shape[0], shape[1]],
    };
    let is_whole = footer == FOOTER
        && sides[1].is_multiple_of(GROUP)
        && format.bytes(sides[0] * sides[1]) == Some(bytes.len());
    is_whole.then_some(PackedView {
        format,
        sides,
        turned,
        bytes,
    })
}

/// The tensor as burn-flex has it, if it is quantized and there.
fn quantized<const D: usize>(tensor: &Tensor<D>) -> Option<FlexQTensor> {
    if !matches!(tensor.dtype(), DType::QFloat(_)) {
        return None;
    }
    let dispatch = tensor.clone().into_dispatch();
    if tensor.device().is_autodiff() {
        let converted = <DispatchTensor as DispatchKindConversion<
            Autodiff<Flex, NoCheckpointing>,
        >>::try_into_backend(dispatch);
        match converted.ok()? {
            BackendTensor::Quantized(packed) => Some(packed),
            _ => None,
        }
    } else {
        match <DispatchTensor as DispatchKindConversion<Flex>>::try_into_backend(dispatch).ok()? {
            BackendTensor::Quantized(packed) => Some(packed),
            _ => None,
        }
    }
}

/// Calls `then` with the number of bytes of a packed parameter's values, and with those of a part of them, in their order.
/// `false` where no part can be made without all others: for a matrix' transpose, and for any other tensor.
pub(crate) fn each_part<const D: usize>(
    tensor: &Tensor<D>,
    then: &mut dyn FnMut(usize, &[u8]),
) -> bool {
    /// Values of a part.
    const VALUES: usize = 1 << 16;
    let backend = quantized(tensor);
    let Some(view) = backend.as_ref().and_then(view) else {
        return false;
    };
    if view.is_turned() {
        return false;
    }
    let [rows, columns] = view.sides();
    let step = (VALUES / columns).max(1);
    let mut values = vec![0.0; step.min(rows) * columns];
    for first in (0..rows).step_by(step) {
        let part = first..rows.min(first + step);
        let values = &mut values[..part.len() * columns];
        view.unpack_rows(part, values);
        let all = rows * columns * size_of::<f32>();
        then(all, pulp::bytemuck::cast_slice(values));
    }
    true
}

/// All values of a packed parameter as a tensor; `None` for any other tensor.
pub(crate) fn dense<const D: usize>(tensor: &Tensor<D>) -> Option<Tensor<D>> {
    let backend = quantized(tensor)?;
    let device = tensor.device();
    let view = view(&backend)?;
    let [rows, columns] = view.sides();
    let mut values = vec![0.0; rows * columns];
    view.unpack_rows(0..rows, &mut values);
    let data = TensorData::new(values, [rows, columns]);
    let values = Tensor::<2>::from_data(data, &device);
    let values = match view.is_turned() {
        true => values.transpose(),
        false => values,
    };
    Some(values.reshape(tensor.shape()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_come_back_and_nothing_else_reads_them() {
        let values: Vec<f32> = (0..64 * 3).map(|at| (at % 7) as f32 / 8.0 - 0.25).collect();
        let matrix = PackedMatrix::nf4(&values, [3, 64]).unwrap();
        let kinds = [Container::Linear, Container::Embedding];
        for device in [Device::flex(), Device::flex().autodiff()] {
            for kind in kinds {
                let tensor = to_tensor(matrix.clone(), kind, &device);
                let found = dense(&tensor).unwrap();
                let found = match kind {
                    Container::Linear => found.transpose(),
                    _ => found,
                };
                assert_eq!(found.dims(), [3, 64]);
                let found = found.into_data().try_to_vec::<f32>().unwrap();
                assert_eq!(found, matrix.values());
                let mut parts: Vec<u8> = Vec::new();
                let is_in_order = each_part(&tensor, &mut |all, part| {
                    assert_eq!(all, 3 * 64 * 4);
                    parts.extend(part);
                });
                assert_eq!(is_in_order, kind == Container::Embedding);
                let whole: Vec<u8> = found.iter().flat_map(|value| value.to_ne_bytes()).collect();
                assert!(!is_in_order || parts == whole);
                // Burn's own way would take bytes for integers.
                let wrong: Vec<f32> = tensor.dequantize().into_data().try_to_vec().unwrap();
                assert!(wrong.iter().all(|value| value.is_nan()));
            }
            assert!(dense(&Tensor::<2>::zeros([2, 2], &device)).is_none());
        }
        let [linear, embedding] =
            kinds.map(|kind| to_tensor(matrix.clone(), kind, &Device::flex()).dims());
        assert_eq!((linear, embedding), ([64, 3], [3, 64]));
    }

    #[test]
    fn rows_change_their_order() {
        let values: Vec<f32> = (0..32 * 4).map(|at| (at / 32) as f32).collect();
        let bytes = values
            .iter()
            .flat_map(|value| burn::tensor::f16::from_f32(*value).to_le_bytes());
        let matrix = PackedMatrix::new(PackedFormat::F16, [4, 32], bytes.collect()).unwrap();
        let turned = matrix.with_rows(|row| 3 - row).unwrap();
        assert_eq!(turned.values()[0], 3.0);
        assert_eq!(turned.with_rows(|row| 3 - row).unwrap(), matrix);
        // A block of 64 is parts of two rows.
        assert!(
            PackedMatrix::nf4(&values, [4, 32])
                .unwrap()
                .with_rows(|row| row)
                .is_none()
        );
        assert!(PackedMatrix::new(PackedFormat::F16, [4, 32], vec![0; 7]).is_err());
    }
}
