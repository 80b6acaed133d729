//! The types that tensors have in GGUF files. Quantized ones are blocks of values with common scales, as ggml packs them;
//! [`PackedFormat`] unpacks them.

use half::{bf16, f16};
use mtlora_core::{PackedFormat, PackedMatrix};

/// How a tensor's values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Values of one block of a type that ends in `_K`.
const LARGE: usize = 256;

impl BlockType {
    /// The types by their number in the file.
    const NUMBERS: [(u32, Self); 11] = [
        (0, Self::F32),
        (1, Self::F16),
        (2, Self::Q4_0),
        (3, Self::Q4_1),
        (6, Self::Q5_0),
        (7, Self::Q5_1),
        (8, Self::Q8_0),
        (12, Self::Q4K),
        (13, Self::Q5K),
        (14, Self::Q6K),
        (30, Self::Bf16),
    ];

    /// The type with this number, if it is read.
    pub(super) fn of(number: u32) -> Option<Self> {
        let mut all = Self::NUMBERS.iter();
        all.find(|(own, _)| *own == number).map(|(_, found)| *found)
    }

    /// Its number in the file.
    pub(super) fn number(self) -> u32 {
        let mut all = Self::NUMBERS.iter();
        all.find(|(_, own)| *own == self)
            .map_or(0, |(number, _)| *number)
    }

    /// Adds the bytes of whole blocks. `false` for a type that is not written here.
    pub(super) fn pack(self, values: &[f32], out: &mut Vec<u8>) -> bool {
        match self {
            Self::F32 => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => {
                let halves = values.iter().map(|value| f16::from_f32(*value));
                out.extend(halves.flat_map(f16::to_le_bytes));
            }
            Self::Bf16 => {
                let halves = values.iter().map(|value| bf16::from_f32(*value));
                out.extend(halves.flat_map(bf16::to_le_bytes));
            }
            Self::Q8_0 => values
                .chunks_exact(32)
                .for_each(|block| pack_q8(block, out)),
            _ => return false,
        }
        true
    }

    /// Values and bytes of a block.
    pub(super) fn sides(self) -> [usize; 2] {
        match self {
            Self::F32 => [1, 4],
            Self::F16 | Self::Bf16 => [1, 2],
            Self::Q4_0 => [32, 18],
            Self::Q4_1 => [32, 20],
            Self::Q5_0 => [32, 22],
            Self::Q5_1 => [32, 24],
            Self::Q8_0 => [32, 34],
            Self::Q4K => [LARGE, 144],
            Self::Q5K => [LARGE, 176],
            Self::Q6K => [LARGE, 210],
        }
    }

    /// How a matrix of this type is kept packed; `None` for 32-bit floats.
    pub(super) fn packed(self) -> Option<PackedFormat> {
        Some(match self {
            Self::F32 => return None,
            Self::F16 => PackedFormat::F16,
            Self::Bf16 => PackedFormat::Bf16,
            Self::Q4_0 => PackedFormat::Q4_0,
            Self::Q4_1 => PackedFormat::Q4_1,
            Self::Q5_0 => PackedFormat::Q5_0,
            Self::Q5_1 => PackedFormat::Q5_1,
            Self::Q8_0 => PackedFormat::Q8_0,
            Self::Q4K => PackedFormat::Q4K,
            Self::Q5K => PackedFormat::Q5K,
            Self::Q6K => PackedFormat::Q6K,
        })
    }

    /// The values of whole blocks.
    pub(super) fn values(self, bytes: Vec<u8>) -> Vec<f32> {
        let [values, size] = self.sides();
        let sides = [1, bytes.len() / size * values];
        let pair = |pair: &[u8; 2]| *pair;
        match self {
            Self::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
            // These need not be whole groups.
            Self::F16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(pair)
                .map(|bytes| f16::from_le_bytes(bytes).to_f32())
                .collect(),
            Self::Bf16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(pair)
                .map(|bytes| bf16::from_le_bytes(bytes).to_f32())
                .collect(),
            quantized => {
                let matrix = quantized
                    .packed()
                    .map(|format| PackedMatrix::new(format, sides, bytes));
                matrix
                    .and_then(Result::ok)
                    .map(|matrix| matrix.values())
                    .unwrap_or_default()
            }
        }
    }
}

/// A block of Q8_0, as `quantize_row_q8_0_ref` of ggml makes it.
fn pack_q8(block: &[f32], out: &mut Vec<u8>) {
    let largest = block
        .iter()
        .fold(0.0f32, |most, value| most.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(
        block
            .iter()
            .map(|value| (value * inverse).round() as i8 as u8),
    );
}
