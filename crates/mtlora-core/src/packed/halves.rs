//! Values of 16 bits, which are not packed further.

use burn::tensor::bf16;

use super::{GROUP, Packing, blocks};

/// 16-bit floats.
pub(super) struct F16;

/// bfloat16.
pub(super) struct Bf16;

#[inline(always)]
fn unpack(bytes: &[u8], first: usize, out: &mut [f32], value: impl Fn([u8; 2]) -> f32) {
    let bytes = &bytes[2 * GROUP * first..][..2 * out.len()];
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *out = value(*bytes);
    }
}

/// The value of a 16-bit float, in operations that vectorise.
#[inline(always)]
fn half_value(bits: u16) -> f32 {
    // Below this there is no leading one.
    const NORMAL: u32 = 1 << 10;
    const INFINITE: u32 = 31 << 10;
    const SMALLEST: f32 = 1.0 / (1 << 24) as f32;
    let (sign, magnitude) = (u32::from(bits >> 15) << 31, u32::from(bits & 0x7fff));
    let subnormal = (magnitude as i32 as f32 * SMALLEST).to_bits();
    let exponent = if magnitude < INFINITE {
        127 - 15
    } else {
        255 - 31
    };
    let normal = (magnitude << 13) + (exponent << 23);
    f32::from_bits(
        sign | if magnitude < NORMAL {
            subnormal
        } else {
            normal
        },
    )
}

impl Packing for F16 {
    fn bytes(values: usize) -> Option<usize> {
        blocks(values, 1, 2)
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], first: usize, out: &mut [f32]) {
        unpack(bytes, first, out, |bytes| {
            half_value(u16::from_le_bytes(bytes))
        });
    }
}

impl Packing for Bf16 {
    fn bytes(values: usize) -> Option<usize> {
        blocks(values, 1, 2)
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], first: usize, out: &mut [f32]) {
        unpack(bytes, first, out, |bytes| {
            bf16::from_le_bytes(bytes).to_f32()
        });
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::f16;

    use super::*;

    #[test]
    fn every_half_has_its_value() {
        for bits in 0..=u16::MAX {
            let (found, wanted) = (half_value(bits), f16::from_bits(bits).to_f32());
            let same = found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan();
            assert!(same, "{bits:#x}: {found} for {wanted}");
        }
    }
}
