//! ggml's Q4_0, Q4_1, Q5_0 and Q5_1 (`dequantize_row_q4_0` and so on in `ggml-quants.c`): blocks of 32 integers of four or five
//! bits. The low halves of the bytes come first, then the high ones, and the fifth bits lie together. Values are relative to
//! a minimum, or to the middle of their range.

use super::{GROUP, Packing, blocks, half_at};

/// One of these formats, which are told apart by the size of a block in bytes.
pub(super) struct Small<const BYTES: usize>;

impl<const BYTES: usize> Small<BYTES> {
    const HAS_MINIMUM: bool = BYTES == 20 || BYTES == 24;
    const HAS_FIFTH: bool = BYTES >= 22;
}

impl<const BYTES: usize> Packing for Small<BYTES> {
    fn bytes(values: usize) -> Option<usize> {
        blocks(values, GROUP, BYTES)
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], first: usize, out: &mut [f32]) {
        let blocks = bytes[BYTES * first..].as_chunks::<BYTES>().0;
        for (out, block) in out.as_chunks_mut::<GROUP>().0.iter_mut().zip(blocks) {
            let scale = half_at(block, 0);
            let (minimum, rest) = if Self::HAS_MINIMUM {
                (half_at(block, 2), &block[4..])
            } else {
                (0.0, &block[2..])
            };
            let (fifth, low) = if Self::HAS_FIFTH {
                (
                    u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]),
                    &rest[4..],
                )
            } else {
                (0, rest)
            };
            let middle = match (Self::HAS_MINIMUM, Self::HAS_FIFTH) {
                (true, _) => 0,
                (false, false) => 8,
                (false, true) => 16,
            };
            let low = &low[..GROUP / 2];
            let value = |q: u8, at: usize| {
                let q = if Self::HAS_FIFTH {
                    i32::from(q) | ((fifth >> at & 1) << 4) as i32
                } else {
                    i32::from(q)
                };
                scale * (q - middle) as f32 + minimum
            };
            let (start, end) = out.split_at_mut(GROUP / 2);
            for (at, (out, byte)) in start.iter_mut().zip(low).enumerate() {
                *out = value(byte & 15, at);
            }
            for (at, (out, byte)) in end.iter_mut().zip(low).enumerate() {
                *out = value(byte >> 4, at + GROUP / 2);
            }
        }
    }
}
