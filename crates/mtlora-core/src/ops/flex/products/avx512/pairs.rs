//! Small matrices in pairs of bfloat16, as `vdpbf16ps` multiplies them.

use std::arch::x86_64::{__m512, _mm512_permutexvar_epi16, _mm512_set_epi32};

use super::super::padded::padded;
use super::super::view::View;
use super::kernel::{LANES, Unit};
use super::rows::rounded;
use crate::ops::flex::instructions::Avx512Bf16;

/// Each row in pairs of neighbours, rounded to the nearest, ties to even; the partner of a lone last one
/// is zero. `pairs` is the memory for it. The pairs lie as the elements did: side by side where these did,
/// else each column's.
pub(super) fn of_rows<'a>(
    _avx512: Avx512Bf16,
    matrix: View<'_>,
    pairs: &'a mut Vec<Unit>,
) -> View<'a, Unit> {
    let [rows, columns] = matrix.sides();
    let units = columns.div_ceil(2);
    if rows == 0 || columns == 0 {
        return View::new(&[], [rows, units], units);
    }
    match matrix.strides() {
        [stride, 1] => {
            // Rows of whole registers: what is written after a row's end is overwritten by the next row.
            reserve(pairs, rows * units + LANES);
            for row in 0..rows {
                let values = &matrix.values()[row * stride..][..columns];
                // SAFETY: `_avx512` proves that the processor has the instructions.
                unsafe { side_by_side(values, &mut pairs[row * units..]) };
            }
            View::new(pairs, [rows, units], units)
        }
        [_, stride] => {
            reserve(pairs, units * rows + LANES);
            let column = |at: usize| {
                if at < columns {
                    &matrix.values()[at * stride..][..rows]
                } else {
                    &[]
                }
            };
            for unit in 0..units {
                let out = &mut pairs[unit * rows..];
                // SAFETY: as above.
                unsafe { joined(column(2 * unit), column(2 * unit + 1), out) };
            }
            View::new(pairs, [units, rows], rows).t()
        }
    }
}

/// Makes it at least that long: what it holds will be overwritten.
fn reserve(pairs: &mut Vec<Unit>, length: usize) {
    if pairs.len() < length {
        pairs.resize(length, 0);
    }
}

/// Pairs of neighbours. Whole registers are written, beyond the last pair where it does not fill one.
#[target_feature(enable = "avx512f,avx512bf16")]
fn side_by_side(values: &[f32], out: &mut [Unit]) {
    for (values, out) in values.chunks(2 * LANES).zip(registers(out)) {
        *out = rounded(&padded(values));
    }
}

/// Pairs of one of `low` and one of `high`, with zeros after the last of `high`. Whole registers are written here too.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn joined(low: &[f32], high: &[f32], out: &mut [Unit]) {
    let starts = (0..low.len()).step_by(LANES);
    for ((start, low), out) in starts.zip(low.chunks(LANES)).zip(registers(out)) {
        let high = &high[start.min(high.len())..high.len().min(start + LANES)];
        let [low, high] = [low, high].map(padded::<_, LANES>);
        *out = interleaved(pulp::cast(low), pulp::cast(high));
    }
}

/// Pairs of one of `low` and one of `high`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in super::super) fn interleaved(low: __m512, high: __m512) -> [Unit; LANES] {
    // Words of the lower half and of the upper one in turn.
    const fn turn(at: i32) -> i32 {
        at | (at + LANES as i32) << 16
    }
    let order = _mm512_set_epi32(
        turn(15),
        turn(14),
        turn(13),
        turn(12),
        turn(11),
        turn(10),
        turn(9),
        turn(8),
        turn(7),
        turn(6),
        turn(5),
        turn(4),
        turn(3),
        turn(2),
        turn(1),
        turn(0),
    );
    let halves = rounded(&pulp::cast([low, high]));
    pulp::cast(_mm512_permutexvar_epi16(order, pulp::cast(halves)))
}

fn registers(out: &mut [Unit]) -> impl Iterator<Item = &mut [Unit; LANES]> {
    out.as_chunks_mut::<LANES>().0.iter_mut()
}
