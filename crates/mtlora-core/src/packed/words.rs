//! Matrices on devices that compute with words of 32 bits, as GPUs do: kernels unpack a group of four neighbours of a row from
//! two words, and a matrix is never unpacked as a whole.
//!
//! They are tensors that Burn knows as quantized: of 8-bit integers, four to a word, with a scale for each block of a row. 8-bit
//! integers are just that. For bfloat16, a block is a group, and a group's word and its scale hold two of its values each, the
//! earlier one in the lower half. Burn would compute nonsense from these, so whatever wants values asks for them with [`dense`].

use burn::backend::Dispatch;
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{Bytes, DType, Device, Shape, Tensor, TensorData, bf16};

use super::is_turned;
use crate::ops::MtLoraBackend;
use crate::visit::Container;

/// Values of a group.
pub(crate) const GROUP: usize = 4;

/// What a matrix' words hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WordFormat {
    /// bfloat16.
    Bf16,
    /// 8-bit integers.
    Int8 {
        /// Groups of a block, which have one scale.
        groups: usize,
    },
}

impl WordFormat {
    /// 8-bit integers for rows of `columns` values: blocks as long as can be, of at most 255 values.
    pub(crate) fn int8(columns: usize) -> Option<Self> {
        let most = usize::from(u8::MAX) / GROUP;
        let fits = |groups: &usize| columns.is_multiple_of(groups * GROUP);
        let groups = (1..=most).rev().find(fits)?;
        Some(Self::Int8 { groups })
    }

    /// Values of a block.
    fn block(self) -> usize {
        match self {
            Self::Bf16 => GROUP,
            Self::Int8 { groups } => groups * GROUP,
        }
    }

    /// Burn's name for such a parameter. A linear weight is the transpose of its matrix, so that it is packed along its first
    /// side.
    fn scheme(self, container: Container) -> QuantScheme {
        let value = match self {
            Self::Bf16 => QuantValue::Q8F,
            Self::Int8 { .. } => QuantValue::Q8S,
        };
        // At most 255.
        let block = self.block() as u8;
        let (axis, block) = match is_turned(container) {
            true => (1, [block, 1]),
            false => (0, [1, block]),
        };
        QuantScheme::default()
            .with_value(value)
            .with_store(QuantStore::PackedU32(axis))
            .per_block(block, ScaleDtype::F32)
    }

    /// What the words of such a parameter hold, if it is one of these.
    pub(crate) fn of(scheme: &QuantScheme) -> Option<Self> {
        let block = scheme.block_size()?.as_dim::<2>().map(usize::from);
        let block = match (scheme.store, block) {
            (QuantStore::PackedU32(1), [block, 1]) | (QuantStore::PackedU32(0), [1, block]) => {
                block
            }
            _ => return None,
        };
        match scheme.value {
            QuantValue::Q8F if block == GROUP => Some(Self::Bf16),
            QuantValue::Q8S if block.is_multiple_of(GROUP) => Some(Self::Int8 {
                groups: block / GROUP,
            }),
            _ => None,
        }
    }

    /// The words of all groups, and then those that Burn takes for scales.
    fn words(self, values: &[f32]) -> Vec<u32> {
        let mut words = Vec::with_capacity(values.len() / GROUP + values.len() / self.block());
        let mut scales = Vec::with_capacity(values.len() / self.block());
        for block in values.chunks_exact(self.block()) {
            match self {
                Self::Bf16 => {
                    words.push(pair(block[0], block[1]));
                    scales.push(pair(block[2], block[3]));
                }
                Self::Int8 { .. } => {
                    let largest = block
                        .iter()
                        .fold(0.0f32, |most, value| most.max(value.abs()));
                    // As Burn has it for a device that keeps bytes.
                    let scale = (largest * 2.0 / 254.0).max(f32::MIN_POSITIVE);
                    let inverse = 1.0 / scale;
                    let byte = |value: f32| {
                        let rounded = (value * inverse).round().clamp(-127.0, 127.0);
                        u32::from(rounded as i8 as u8)
                    };
                    let groups = block.chunks_exact(GROUP);
                    words.extend(groups.map(|group| {
                        let bytes = group.iter().rev();
                        bytes.fold(0, |word, value| word << 8 | byte(*value))
                    }));
                    scales.push(scale.to_bits());
                }
            }
        }
        words.extend(scales);
        words
    }
}

/// Two values in bfloat16.
fn pair(low: f32, high: f32) -> u32 {
    let [low, high] = [low, high].map(|value| u32::from(bf16::from_f32(value).to_bits()));
    low | high << 16
}

/// A parameter of such a module whose matrix has these values, `[rows, columns]`. `None` where rows are not whole groups.
pub(crate) fn to_tensor(
    values: &[f32],
    [rows, columns]: [usize; 2],
    format: WordFormat,
    container: Container,
    device: &Device,
) -> Option<Tensor<2>> {
    if values.is_empty() || !columns.is_multiple_of(format.block()) {
        return None;
    }
    let sides = match is_turned(container) {
        true => [columns, rows],
        false => [rows, columns],
    };
    let dtype = DType::QFloat(format.scheme(container));
    let bytes = Bytes::from_elems(format.words(values));
    let data = TensorData::from_bytes(bytes, Shape::from(sides), dtype);
    Some(Tensor::from_data(data, device))
}

/// All values of a parameter that is kept in words; `None` for any other tensor.
pub(crate) fn dense<const D: usize>(tensor: &Tensor<D>) -> Option<Tensor<D>> {
    let DType::QFloat(scheme) = tensor.dtype() else {
        return None;
    };
    WordFormat::of(&scheme)?;
    let words = tensor.clone().into_dispatch();
    let values = <Dispatch as MtLoraBackend>::unpack_words(words);
    Some(Tensor::from_dispatch(values))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_longest_blocks_of_whole_groups() {
        for (columns, block) in [(768, 192), (3072, 192), (1024, 128), (500, 100), (1028, 4)] {
            assert_eq!(WordFormat::int8(columns).unwrap().block(), block);
        }
        assert_eq!(WordFormat::int8(251), None);
    }

    #[test]
    fn a_scheme_names_its_format() {
        for container in [Container::Linear, Container::Embedding] {
            for format in [
                WordFormat::Bf16,
                WordFormat::Int8 { groups: 1 },
                WordFormat::Int8 { groups: 48 },
            ] {
                assert_eq!(WordFormat::of(&format.scheme(container)), Some(format));
            }
        }
        assert_eq!(WordFormat::of(&QuantScheme::default()), None);
    }

    #[test]
    fn words_have_the_earlier_values_in_the_lower_bits() {
        let words = WordFormat::Bf16.words(&[1.0, -2.0, 0.5, 1.0 + 1.0 / 256.0]);
        // 1 + 1/256 lies between two values of bfloat16 and goes to the even one.
        assert_eq!(words, [0xc000_3f80, 0x3f80_3f00]);
        let words = WordFormat::Int8 { groups: 1 }.words(&[127.0, -127.0, 1.0, 0.0]);
        assert_eq!(words, [0x0001_817f, 1.0f32.to_bits()]);
        let words = WordFormat::Int8 { groups: 1 }.words(&[0.0; 4]);
        assert_eq!(words[0], 0);
    }
}
