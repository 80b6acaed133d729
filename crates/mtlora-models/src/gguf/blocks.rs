//! The types that tensors have in GGUF files. Quantized ones are blocks of values with common scales, as ggml packs them
//! (`ggml-quants.c`; gguf-py's `quants.py` computes the same).

use half::{bf16, f16};

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

    /// The values of whole blocks.
    pub(super) fn values(self, bytes: &[u8]) -> Vec<f32> {
        let [values, size] = self.sides();
        let mut out = Vec::with_capacity(bytes.len() / size * values);
        for block in bytes.chunks_exact(size) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
                Self::F16 => out.push(half_at(block, 0)),
                Self::Bf16 => out.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
                Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => self.small(block, &mut out),
                Self::Q8_0 => {
                    let scale = half_at(block, 0);
                    out.extend(block[2..].iter().map(|q| scale * f32::from(*q as i8)));
                }
                Self::Q4K | Self::Q5K => self.with_minima(block, &mut out),
                Self::Q6K => six_bits(block, &mut out),
            }
        }
        out
    }

    /// Thirty-two values of four or five bits: the low halves of the bytes, then the high ones. The fifth bits lie
    /// together. Values are relative to a minimum, or to the middle of their range.
    fn small(self, block: &[u8], out: &mut Vec<f32>) {
        let has_minimum = matches!(self, Self::Q4_1 | Self::Q5_1);
        let has_fifth = matches!(self, Self::Q5_0 | Self::Q5_1);
        let scale = half_at(block, 0);
        let mut at = 2;
        let minimum = if has_minimum {
            at += 2;
            half_at(block, 2)
        } else {
            0.0
        };
        let fifth = if has_fifth {
            at += 4;
            u32::from_le_bytes([block[at - 4], block[at - 3], block[at - 2], block[at - 1]])
        } else {
            0
        };
        let middle = match (has_minimum, has_fifth) {
            (true, _) => 0,
            (false, false) => 8,
            (false, true) => 16,
        };
        for index in 0..32 {
            let byte = block[at + index % 16];
            let low = if index < 16 { byte & 15 } else { byte >> 4 };
            let q = i32::from(low) | ((fifth >> index & 1) << 4) as i32;
            out.push(scale * (q - middle) as f32 + minimum);
        }
    }

    /// Eight groups of 32 values of four or five bits, each group with a scale and a minimum of six bits.
    fn with_minima(self, block: &[u8], out: &mut Vec<f32>) {
        let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
        let packed = &block[4..16];
        let (fifth, low) = match self {
            Self::Q5K => block[16..].split_at(LARGE / 8),
            _ => block[16..].split_at(0),
        };
        for group in 0..8 {
            let [s, m] = if group < 4 {
                [packed[group] & 63, packed[group + 4] & 63]
            } else {
                let (s, m, both) = (packed[group - 4], packed[group], packed[group + 4]);
                [both & 15 | s >> 6 << 4, both >> 4 | m >> 6 << 4]
            };
            let (scale, minimum) = (scale * f32::from(s), minimum * f32::from(m));
            for index in 0..32 {
                let byte = low[group / 2 * 32 + index];
                let mut q = if group % 2 == 0 { byte & 15 } else { byte >> 4 };
                if let Some(bits) = fifth.get(index) {
                    q |= (bits >> group & 1) << 4;
                }
                out.push(scale * f32::from(q) - minimum);
            }
        }
    }
}

/// Two halves of 128 values of six bits, each 16 values with a scale of eight bits.
fn six_bits(block: &[u8], out: &mut Vec<f32>) {
    let (low, rest) = block.split_at(LARGE / 2);
    let (high, rest) = rest.split_at(LARGE / 4);
    let scale = half_at(rest, LARGE / 16);
    for index in 0..LARGE {
        let (part, within) = (index / 128, index % 128);
        let (quarter, lane) = (within / 32, within % 32);
        let byte = low[part * 64 + quarter % 2 * 32 + lane];
        let four = if quarter < 2 { byte & 15 } else { byte >> 4 };
        let two = high[part * 32 + lane] >> (2 * quarter) & 3;
        let q = i32::from(four | two << 4) - 32;
        out.push(scale * f32::from(rest[index / 16] as i8) * q as f32);
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

/// The 16-bit float that begins at a byte.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
