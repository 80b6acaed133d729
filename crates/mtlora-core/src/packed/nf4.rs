//! bitsandbytes' NF4 with double quantization (arXiv 2305.14314; `quantize_4bit` and `create_dynamic_map` in its `functional.py`, and
//! the kernels in `backends/default/ops.py`).
//!
//! The values of a matrix, row after row, form blocks of 64. A block's scale is its largest absolute value, and each value is
//! the nearest of 16 numbers times that scale. The scales themselves, minus their mean, form blocks of 256: each is the nearest
//! of 256 numbers times the largest absolute value of its block.
//!
//! The bytes: two values a byte, the first in the high half; a byte for each scale; the scales of the scales, and the scales'
//! mean, as 32-bit floats.

use std::sync::LazyLock;

use super::{GROUP, Packing};

/// Values with a common scale.
const BLOCK: usize = 64;
/// Scales with a common scale.
const SCALES: usize = 256;

/// The sixteen numbers.
const CODE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The 256 numbers for scales: seven exponents, each with twice as many fractions as the one before, with both signs, and 0
/// and 1.
static SCALE_CODE: LazyLock<[f32; 256]> = LazyLock::new(|| {
    let mut code = vec![0.0, 1.0];
    for exponent in 0..7 {
        let count = 1usize << exponent;
        // As torch.linspace(0.1, 1, count + 1) in 32-bit floats: from both ends to the middle.
        let step = (1.0f32 - 0.1) / count as f32;
        let bound = |at: usize| {
            if at < count.div_ceil(2) {
                0.1 + step * at as f32
            } else {
                1.0 - step * (count - at) as f32
            }
        };
        let factor = 10f64.powi(exponent - 6) as f32;
        for at in 0..count {
            let mean = factor * ((bound(at) + bound(at + 1)) / 2.0);
            code.extend([mean, -mean]);
        }
    }
    code.sort_by(f32::total_cmp);
    let mut all = [0.0; 256];
    all.copy_from_slice(&code);
    all
});

pub(super) struct Nf4;

/// How many scales a matrix with that many values has, and how many scales these.
fn scales(values: usize) -> [usize; 2] {
    let blocks = values.div_ceil(BLOCK);
    [blocks, blocks.div_ceil(SCALES)]
}

#[inline(always)]
fn float_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Packing for Nf4 {
    fn bytes(values: usize) -> Option<usize> {
        let [blocks, large] = scales(values);
        (values.is_multiple_of(GROUP)).then(|| values / 2 + blocks + 4 * large + 4)
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], first: usize, out: &mut [f32]) {
        // The number of values, from the bytes: a block is 33 of them, or 17 if it is the last and half as long.
        let mean = float_at(bytes, bytes.len() - 4);
        let values = values_of(bytes.len());
        let (codes, rest) = bytes.split_at(values / 2);
        let blocks = values.div_ceil(BLOCK);
        let scale_code = &*SCALE_CODE;
        let groups = codes[first * (GROUP / 2)..].as_chunks::<{ GROUP / 2 }>().0;
        for ((group, out), codes) in (first..).zip(out.as_chunks_mut::<GROUP>().0).zip(groups) {
            let block = group * GROUP / BLOCK;
            let large = float_at(rest, blocks + block / SCALES * 4);
            let scale = scale_code[usize::from(rest[block])] * large + mean;
            for (out, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
                *out = [
                    CODE[usize::from(byte >> 4)] * scale,
                    CODE[usize::from(byte & 15)] * scale,
                ];
            }
        }
    }
}

/// The number of values of a matrix of that many bytes, the inverse of [`Nf4::bytes`].
#[inline(always)]
fn values_of(bytes: usize) -> usize {
    // 256 blocks are 256 * 33 + 4 bytes.
    const LARGE: usize = SCALES * (BLOCK / 2 + 1) + 4;
    let bytes = bytes - 4;
    let (whole, rest) = (bytes / LARGE, bytes % LARGE);
    let rest = rest.saturating_sub(4);
    let part = rest % (BLOCK / 2 + 1);
    whole * SCALES * BLOCK + rest / (BLOCK / 2 + 1) * BLOCK + part.saturating_sub(1) * 2
}

/// Packs values, which are whole groups.
pub(super) fn pack(values: &[f32]) -> Vec<u8> {
    let bounds = middles(&CODE);
    let mut bytes = Vec::with_capacity(Nf4::bytes(values.len()).unwrap_or_default());
    let mut largest = Vec::with_capacity(values.len().div_ceil(BLOCK));
    for block in values.chunks(BLOCK) {
        let (scale, scaled) = scaled(block, BLOCK);
        let code = |value: f32| nearest(value, &bounds) as u8;
        bytes.extend(scaled.chunks(2).map(|pair| match pair {
            [high, low] => code(*high) << 4 | code(*low),
            [high] => code(*high) << 4,
            _ => 0,
        }));
        largest.push(scale);
    }
    let sum: f64 = largest.iter().map(|scale| f64::from(*scale)).sum();
    let mean = (sum / largest.len().max(1) as f64) as f32;
    largest.iter_mut().for_each(|scale| *scale -= mean);
    let bounds = middles(&*SCALE_CODE);
    let mut large = Vec::new();
    for block in largest.chunks(SCALES) {
        let (scale, scaled) = scaled(block, SCALES);
        bytes.extend(scaled.iter().map(|value| nearest(*value, &bounds) as u8));
        large.push(scale);
    }
    bytes.extend(
        large
            .iter()
            .chain([&mean])
            .flat_map(|scale| scale.to_le_bytes()),
    );
    bytes
}

/// The largest absolute value of a block, and its values between -1 and 1. As in bitsandbytes, whole blocks are multiplied by
/// the inverse of the largest value, and a shorter last block is divided by it.
fn scaled(block: &[f32], whole: usize) -> (f32, Vec<f32>) {
    const SMALLEST: f32 = 1e-38;
    let largest = block
        .iter()
        .fold(0.0f32, |most, value| most.max(value.abs()));
    if block.len() < whole {
        let largest = largest.max(SMALLEST);
        let scaled = block.iter().map(|value| (value / largest).clamp(-1.0, 1.0));
        return (largest, scaled.collect());
    }
    let inverse = 1.0 / largest.max(SMALLEST);
    let scaled = block.iter().map(|value| (value * inverse).clamp(-1.0, 1.0));
    (largest, scaled.collect())
}

/// The middles between neighbours.
fn middles(code: &[f32]) -> Vec<f32> {
    code.windows(2)
        .map(|pair| (pair[0] + pair[1]) / 2.0)
        .collect()
}

/// The index of the nearest number; of the smaller one if a value lies in the middle.
fn nearest(value: f32, bounds: &[f32]) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use safetensors::SafeTensors;

    use super::*;
    use crate::PackedMatrix;

    #[test]
    fn the_number_of_values_follows_from_the_bytes() {
        for groups in 1..1600 {
            let values = groups * GROUP;
            assert_eq!(values_of(Nf4::bytes(values).unwrap()), values);
        }
    }

    /// tests/interop/nf4_case.py made the file with bitsandbytes.
    #[test]
    fn values_are_those_of_bitsandbytes() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/nf4/bitsandbytes.safetensors"
        );
        let file = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        let floats = |name: &str| -> Vec<f32> {
            let bytes = file.tensor(name).unwrap().data().to_vec();
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect()
        };
        let apart = |a: &[f32], b: &[f32]| {
            assert_eq!(a.len(), b.len());
            a.iter()
                .zip(b)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0f32, f32::max)
        };
        assert_eq!(floats("code"), CODE);
        // One unit in the last place of the largest.
        assert!(apart(&floats("scale_code"), &*SCALE_CODE) < 1e-7);
        for name in ["long", "short"] {
            let shape = file.tensor(name).unwrap().shape().to_vec();
            let weight = floats(name);
            let packed = PackedMatrix::nf4(&weight, [shape[0], shape[1]]).unwrap();
            let wanted = floats(&format!("{name}_nf4"));
            let size = weight
                .iter()
                .fold(0.0f32, |most, value| most.max(value.abs()));
            assert!(apart(&packed.values(), &wanted) < 1e-6 * size, "{name}");
            // 4.127 bits a value, the mean, and what does not fill a block.
            let bits = 8 * packed.into_bytes().len();
            let rounded_up = 8 + 32 + 32;
            assert!(
                bits as f64 <= 4.127 * weight.len() as f64 + f64::from(rounded_up),
                "{bits}"
            );
        }
    }
}
