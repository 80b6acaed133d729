//! ggml's Q8_0: blocks of a 16-bit scale and 32 integers of 8 bits (`dequantize_row_q8_0` in `ggml-quants.c`).

use super::{GROUP, Packing, blocks, half_at};

const BYTES: usize = 34;

pub(super) struct Q8_0;

impl Packing for Q8_0 {
    fn bytes(values: usize) -> Option<usize> {
        blocks(values, GROUP, BYTES)
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], first: usize, out: &mut [f32]) {
        let blocks = bytes[BYTES * first..].as_chunks::<BYTES>().0;
        for (out, block) in out.as_chunks_mut::<GROUP>().0.iter_mut().zip(blocks) {
            let scale = half_at(block, 0);
            for (out, q) in out.iter_mut().zip(&block[2..]) {
                *out = scale * f32::from(*q as i8);
            }
        }
    }
}
