//! ggml's Q6_K (`dequantize_row_q6_K` in `ggml-quants.c`): blocks of two halves of 128 integers of six bits, each 16 of them with
//! a scale of eight bits.

use super::{GROUP, Packing, blocks, half_at};

/// Values of a block.
const BLOCK: usize = 256;
const GROUPS: usize = BLOCK / GROUP;
const BYTES: usize = 210;

pub(super) struct Q6K;

impl Packing for Q6K {
    fn bytes(values: usize) -> Option<usize> {
        blocks(values, BLOCK, BYTES)
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], first: usize, out: &mut [f32]) {
        for (at, out) in (first..).zip(out.as_chunks_mut::<GROUP>().0) {
            let (block, group) = (&bytes[at / GROUPS * BYTES..][..BYTES], at % GROUPS);
            let (half, quarter) = (group / 4, group % 4);
            let low = &block[half * 64 + quarter % 2 * GROUP..][..GROUP];
            let high = &block[128 + half * GROUP..][..GROUP];
            let scales = &block[192 + 2 * group..][..2];
            let scale = half_at(block, 208);
            let (low_shift, high_shift) = (quarter / 2 * 4, 2 * quarter);
            let parts = out.as_chunks_mut::<16>().0.iter_mut().zip(scales);
            for ((out, own), start) in parts.zip([0, 16]) {
                let scale = scale * f32::from(*own as i8);
                let bytes = low[start..start + 16].iter().zip(&high[start..start + 16]);
                for (out, (low, high)) in out.iter_mut().zip(bytes) {
                    let q = low >> low_shift & 15 | (high >> high_shift & 3) << 4;
                    *out = scale * f32::from(q as i8 - 32);
                }
            }
        }
    }
}
