//! Packed matrices as tensors of burn-flex, which has no type for them.
//!
//! A linear weight is a `Tensor<2>` of `[in, out]`, and a quantized one has 8-bit integers and scales. A packed one has the
//! packed bytes in place of the integers, with a footer that names the format. So that no operation of Burn's reads beyond them,
//! the strides are 0 and 1; so that none computes with them as if they were integers, the scale is not a number. What
//! multiplies weights ([`flex`](crate::ops)) asks for the [`view`] first, and whatever wants values asks for them with
//! [`dense`].

use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::flex::{FlexQTensor, FlexTensor, Layout};
use burn::backend::{
    Autodiff, BackendTensor, DType, DispatchKindConversion, DispatchTensor, Flex, TensorMetadata,
};
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue};
use burn::tensor::{Bytes, Device, Shape, Tensor, TensorData};

use super::{GROUP, PackedFormat, PackedMatrix, PackedView};

/// What the footer begins with; the format's number follows.
const FOOTER: &[u8; 15] = b"mtlora packed \n";

/// The weight of a linear layer with this matrix, `[out, in]`: a tensor of `[in, out]`. Where the device does not keep matrices
/// packed, it has all values.
pub(crate) fn to_tensor(matrix: &PackedMatrix, device: &Device) -> Tensor<2> {
    let [rows, columns] = matrix.sides();
    if !crate::ops::capabilities(device).stores_packed {
        return super::with_all_values(matrix, device);
    }
    let format = matrix.format();
    let number = PackedFormat::ALL.iter().position(|other| *other == format);
    let mut bytes: Vec<i8> = pulp::bytemuck::allocation::cast_vec(matrix.bytes().to_vec());
    bytes.extend(FOOTER.iter().map(|byte| *byte as i8));
    bytes.push(number.unwrap_or_default() as i8);
    let layout = Layout::new(Shape::from([columns, rows]), vec![0, 1], 0);
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

/// The packed matrix, `[out, in]`, in a tensor's memory, if it has one.
pub(crate) fn view(tensor: &FlexQTensor) -> Option<PackedView<'_>> {
    let layout = tensor.tensor().layout();
    if layout.strides() != [0, 1] {
        return None;
    }
    let bytes: &[u8] = pulp::bytemuck::cast_slice(tensor.tensor().storage::<i8>());
    let (number, bytes) = bytes.split_last()?;
    let (bytes, footer) = bytes.split_last_chunk::<15>()?;
    let format = *PackedFormat::ALL.get(usize::from(*number))?;
    let shape = tensor.shape();
    let sides = [shape[1], shape[0]];
    let is_whole = footer == FOOTER
        && sides[1].is_multiple_of(GROUP)
        && format.bytes(sides[0] * sides[1]) == Some(bytes.len());
    is_whole.then_some(PackedView {
        format,
        sides,
        bytes,
    })
}

/// All values of a packed matrix, `[in, out]`, as a tensor; `None` for any other tensor.
pub(crate) fn dense<const D: usize>(tensor: &Tensor<D>) -> Option<Tensor<D>> {
    if !matches!(tensor.dtype(), DType::QFloat(_)) {
        return None;
    }
    let device = tensor.device();
    let dispatch = tensor.clone().into_dispatch();
    let backend = if device.is_autodiff() {
        let converted = <DispatchTensor as DispatchKindConversion<
            Autodiff<Flex, NoCheckpointing>,
        >>::try_into_backend(dispatch);
        match converted.ok()? {
            BackendTensor::Quantized(packed) => packed,
            _ => return None,
        }
    } else {
        match <DispatchTensor as DispatchKindConversion<Flex>>::try_into_backend(dispatch).ok()? {
            BackendTensor::Quantized(packed) => packed,
            _ => return None,
        }
    };
    let view = view(&backend)?;
    let [rows, columns] = view.sides();
    let mut values = vec![0.0; rows * columns];
    view.unpack_rows(0..rows, &mut values);
    let data = TensorData::new(values, [rows, columns]);
    let turned = Tensor::<2>::from_data(data, &device).transpose();
    Some(turned.reshape(tensor.shape()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_come_back_and_nothing_else_reads_them() {
        let values: Vec<f32> = (0..64 * 3).map(|at| (at % 7) as f32 / 8.0 - 0.25).collect();
        let matrix = PackedMatrix::nf4(&values, [3, 64]).unwrap();
        for device in [Device::flex(), Device::flex().autodiff()] {
            let tensor = to_tensor(&matrix, &device);
            assert_eq!(tensor.dims(), [64, 3]);
            let found = dense(&tensor).unwrap().transpose().into_data();
            assert_eq!(found.try_to_vec::<f32>().unwrap(), matrix.values());
            // Burn's own way would take bytes for integers.
            let wrong: Vec<f32> = tensor.dequantize().into_data().try_to_vec().unwrap();
            assert!(wrong.iter().all(|value| value.is_nan()));
            assert!(dense(&Tensor::<2>::zeros([2, 2], &device)).is_none());
        }
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
