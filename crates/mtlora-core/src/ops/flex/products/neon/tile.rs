//! The innermost loop: a tile of sums in registers.

use std::arch::aarch64::vfmaq_laneq_f32;

use super::super::blocked::Begin;
use super::super::padded::padded;
use super::super::view::ViewMut;
use super::kernel::{COLUMNS, LANES, REGISTERS, ROWS};
use super::registers::{Register, add, load, store, zero};

/// The sums of a tile: of each row the registers of its columns.
pub(super) type Sums = [[Register; REGISTERS]; ROWS];

/// Products of a block's rows with a panel's lines, element after element of the inner dimension.
#[inline(always)]
pub(super) fn sums(rows: &[[[f32; 1]; ROWS]], lines: &[[f32; COLUMNS]]) -> Sums {
    let mut sums = [[zero(); REGISTERS]; ROWS];
    for (factors, line) in rows.iter().zip(lines) {
        let (parts, _) = line.as_chunks::<LANES>();
        let right = std::array::from_fn(|part| load(&parts[part]));
        let [[a], [b], [c], [d], [e], [f]] = *factors;
        let first = load(&[a, b, c, d]);
        let second = load(&[e, f, 0.0, 0.0]);
        multiply::<0>(&mut sums[0], right, first);
        multiply::<1>(&mut sums[1], right, first);
        multiply::<2>(&mut sums[2], right, first);
        multiply::<3>(&mut sums[3], right, first);
        multiply::<0>(&mut sums[4], right, second);
        multiply::<1>(&mut sums[5], right, second);
    }
    sums
}

/// Adds the products of a line and one lane of the factors.
#[inline(always)]
fn multiply<const LANE: i32>(
    sums: &mut [Register; REGISTERS],
    right: [Register; REGISTERS],
    factors: Register,
) {
    for (sum, right) in sums.iter_mut().zip(right) {
        // SAFETY: every processor that this is compiled for has NEON.
        *sum = unsafe { vfmaq_laneq_f32::<LANE>(*sum, right, factors) };
    }
}

/// Writes what a tile's sums begin with, and the sums, to the tile.
///
/// # Safety
/// With [`Begin::Sum`], the tile's elements have been written. It has at most [`ROWS`] rows and [`COLUMNS`] columns.
#[inline(always)]
pub(super) unsafe fn finish(mut tile: ViewMut<'_>, begin: Begin<'_>, sums: &Sums) {
    let (first, stride, [rows, columns]) = (tile.first(), tile.stride(), tile.sides());
    let bias: [f32; COLUMNS] = match begin {
        Begin::Bias(bias) => padded(&bias[..columns]),
        Begin::Zero | Begin::Sum => [0.0; COLUMNS],
    };
    // Not `take(rows)`: the sums would leave their registers.
    for (row, sums) in sums.iter().enumerate() {
        if row >= rows {
            continue;
        }
        let place = first.wrapping_add(row * stride);
        let mut line = bias;
        if matches!(begin, Begin::Sum) {
            // SAFETY: the row is one of the tile's, whose elements this view has alone, and the caller promises that they
            // have been written.
            unsafe { line.as_mut_ptr().copy_from_nonoverlapping(place, columns) };
        }
        let (parts, _) = line.as_chunks_mut::<LANES>();
        for (part, sum) in parts.iter_mut().zip(sums) {
            store(part, add(load(part), *sum));
        }
        // SAFETY: as above, but for what has been written.
        unsafe { place.copy_from_nonoverlapping(line.as_ptr(), columns) };
    }
}
