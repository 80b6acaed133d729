//! Values of 16 bits, which are not packed further.

use burn::tensor::{bf16, f16};

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

impl Packing for F16 {
    fn bytes(values: usize) -> Option<usize> {
        blocks(values, 1, 2)
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], first: usize, out: &mut [f32]) {
        unpack(bytes, first, out, |bytes| {
            f16::from_le_bytes(bytes).to_f32()
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
