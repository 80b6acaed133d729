//! Four floats, as a value: the few operations that the kernels are made of. NEON is part of every 64-bit ARM processor, so that
//! none of them needs more than the compiler assumes.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vcombine_f32, vcreate_s8, vcvtq_f32_s32, vdupq_n_f32, vfmaq_f32,
    vget_high_f32, vget_low_f32, vget_low_s16, vld1_u16, vld1q_f32, vmovl_s8, vmovl_s16, vmulq_f32,
    vreinterpretq_f32_u32, vshll_n_u16, vst1q_f32, vtrn1q_f32, vtrn2q_f32,
};

use super::kernel::LANES;

/// Four floats.
pub(in crate::ops::flex) type Register = float32x4_t;

#[inline(always)]
pub(super) fn zero() -> Register {
    broadcast(0.0)
}

#[inline(always)]
pub(super) fn broadcast(value: f32) -> Register {
    // SAFETY: every processor that this is compiled for has NEON, here and below.
    unsafe { vdupq_n_f32(value) }
}

#[inline(always)]
pub(super) fn load(values: &[f32; LANES]) -> Register {
    // SAFETY: as above, and the array has as many floats as are read.
    unsafe { vld1q_f32(values.as_ptr()) }
}

#[inline(always)]
pub(super) fn store(values: &mut [f32; LANES], register: Register) {
    // SAFETY: as above, and the array has as many floats as are written.
    unsafe { vst1q_f32(values.as_mut_ptr(), register) }
}

#[inline(always)]
pub(super) fn add(a: Register, b: Register) -> Register {
    // SAFETY: as above.
    unsafe { vaddq_f32(a, b) }
}

#[inline(always)]
pub(super) fn multiply(a: Register, b: Register) -> Register {
    // SAFETY: as above.
    unsafe { vmulq_f32(a, b) }
}

/// The floats of which these bits are the upper halves.
#[inline(always)]
pub(super) fn widened_halves(halves: [u16; LANES]) -> Register {
    // SAFETY: as above, and the array has as many numbers as are read.
    unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(halves.as_ptr()))) }
}

/// These integers.
#[inline(always)]
pub(super) fn widened_integers(integers: [i8; LANES]) -> Register {
    let bits = u32::from_ne_bytes(integers.map(i8::cast_unsigned));
    // SAFETY: as above.
    unsafe {
        let words = vmovl_s8(vcreate_s8(u64::from(bits)));
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)))
    }
}

/// `a b + c`, rounded once.
#[inline(always)]
pub(super) fn multiply_add(a: Register, b: Register, c: Register) -> Register {
    // SAFETY: as above.
    unsafe { vfmaq_f32(c, a, b) }
}

/// The lower halves of both, and the upper halves.
#[inline(always)]
pub(super) fn halves(a: Register, b: Register) -> [Register; 2] {
    // SAFETY: as above.
    unsafe {
        [
            vcombine_f32(vget_low_f32(a), vget_low_f32(b)),
            vcombine_f32(vget_high_f32(a), vget_high_f32(b)),
        ]
    }
}

/// A square, turned.
#[inline(always)]
pub(super) fn transposed([a, b, c, d]: [Register; LANES]) -> [Register; LANES] {
    // SAFETY: as above.
    let [first, second, third, fourth] = unsafe {
        [
            vtrn1q_f32(a, b),
            vtrn2q_f32(a, b),
            vtrn1q_f32(c, d),
            vtrn2q_f32(c, d),
        ]
    };
    // Now the even and the odd columns of two rows each lie side by side.
    let ([first, third], [second, fourth]) = (halves(first, third), halves(second, fourth));
    [first, second, third, fourth]
}

/// The sum of the four, by halves.
#[inline(always)]
pub(super) fn total(register: Register) -> f32 {
    let mut lanes = [0.0; LANES];
    store(&mut lanes, register);
    let [a, b, c, d] = lanes;
    (a + c) + (b + d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let rows = [0.0, 10.0, 20.0, 30.0].map(|row| [row, row + 1.0, row + 2.0, row + 3.0]);
        let found = transposed(rows.map(|row| load(&row))).map(|register| {
            let mut lanes = [0.0; LANES];
            store(&mut lanes, register);
            lanes
        });
        let expected = [0.0, 1.0, 2.0, 3.0]
            .map(|column| [column, column + 10.0, column + 20.0, column + 30.0]);
        assert_eq!(found, expected);
        assert_eq!(total(load(&[1.0, 2.0, 4.0, 8.0])), 15.0);
    }

    #[test]
    fn integers_and_halves_keep_their_values() {
        let mut lanes = [0.0; LANES];
        store(&mut lanes, widened_integers([-128, -1, 0, 127]));
        assert_eq!(lanes, [-128.0, -1.0, 0.0, 127.0]);
        store(&mut lanes, widened_halves([0x3f80, 0xc000, 0, 0x7f80]));
        assert_eq!(lanes, [1.0, -2.0, 0.0, f32::INFINITY]);
    }
}
