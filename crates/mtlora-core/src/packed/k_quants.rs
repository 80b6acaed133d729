//! ggml's Q4_K and Q5_K (`dequantize_row_q4_K`, `dequantize_row_q5_K` in `ggml-quants.c`): blocks of eight groups of 32 integers
//! of four or five bits, each group with a scale and a minimum of six bits.

use super::{GROUP, Packing, blocks, half_at};

/// Values of a block.
const BLOCK: usize = 256;
const GROUPS: usize = BLOCK / GROUP;

/// Q4_K, whose blocks have 144 bytes, or Q5_K, whose blocks have 176.
pub(super) struct KQuant<const BYTES: usize>;

impl<const BYTES: usize> KQuant<BYTES> {
    const HAS_FIFTH: bool = BYTES == 176;
}

/// The six bits of a group's scale and minimum.
#[inline(always)]
fn scale_and_minimum(packed: &[u8], group: usize) -> [u8; 2] {
    if group < 4 {
        [packed[group] & 63, packed[group + 4] & 63]
    } else {
        let (s, m, both) = (packed[group - 4], packed[group], packed[group + 4]);
        [both & 15 | s >> 6 << 4, both >> 4 | m >> 6 << 4]
    }
}

impl<const BYTES: usize> Packing for KQuant<BYTES> {
    fn bytes(values: usize) -> Option<usize> {
        blocks(values, BLOCK, BYTES)
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], first: usize, out: &mut [f32]) {
        for (at, out) in (first..).zip(out.as_chunks_mut::<GROUP>().0) {
            let (block, group) = (&bytes[at / GROUPS * BYTES..][..BYTES], at % GROUPS);
            let [s, m] = scale_and_minimum(&block[4..16], group);
            let scale = half_at(block, 0) * f32::from(s);
            let minimum = half_at(block, 2) * f32::from(m);
            let fifth_bytes = if Self::HAS_FIFTH { GROUP } else { 0 };
            let fifth = &block[16..16 + fifth_bytes];
            let low = &block[16 + fifth_bytes + group / 2 * GROUP..][..GROUP];
            let shift = 4 * (group % 2);
            if Self::HAS_FIFTH {
                for ((out, byte), bits) in out.iter_mut().zip(low).zip(fifth) {
                    let q = byte >> shift & 15 | (bits >> group & 1) << 4;
                    *out = scale * f32::from(q) - minimum;
                }
            } else {
                for (out, byte) in out.iter_mut().zip(low) {
                    *out = scale * f32::from(byte >> shift & 15) - minimum;
                }
            }
        }
    }
}
