//! Products of matrices that lie in the first caches, as attention makes them: as they lie, but for a transpose on the
//! right.

use std::cell::RefCell;
use std::ops::Range;

use super::super::triangle::Triangle;
use super::super::view::{View, ViewMut};
use super::super::weights::Floats;
use super::kernel::{COLUMNS, LANES, REGISTERS, ROWS};
use super::lanes::Lanes;
use super::registers::{broadcast, load, multiply_add, store, transposed, zero};
use super::right::Line;
use crate::ops::flex::instructions::Neon;

thread_local! {
    /// A thread's memory for a panel.
    static PANEL: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// `factor a b` into `out`.
///
/// # Panics
/// When the shapes do not fit.
pub(in crate::ops::flex) fn product(
    _neon: Neon,
    mut out: ViewMut<'_>,
    a: View<'_>,
    b: View<'_>,
    factor: f32,
    triangle: Triangle,
) {
    let ([rows, inner], [depth, columns]) = (a.sides(), b.sides());
    assert!(depth == inner && out.sides() == [rows, columns]);
    let mut lines = PANEL.take();
    if lines.len() < inner {
        lines.resize(inner, [0.0; COLUMNS]);
    }
    for first in (0..columns).step_by(COLUMNS) {
        let last = columns.min(first + COLUMNS);
        lay_out(b, first..last, &mut lines);
        for top in (0..rows).step_by(ROWS) {
            let block = top..rows.min(top + ROWS);
            let (needed, inner) = triangle.needed(&block, inner, columns);
            if needed <= first {
                continue;
            }
            let out = out.part(block.clone(), first..last.min(needed));
            multiply(inner, a, block, &lines, out, factor);
        }
    }
    PANEL.set(lines);
}

/// Some columns of a matrix, at most [`COLUMNS`], as lines. What is beyond the last column is anything.
fn lay_out(b: View<'_>, columns: Range<usize>, lines: &mut [Line]) {
    let (inner, [down, right], values) = (b.sides()[0], b.strides(), b.values());
    let lines = &mut lines[..inner];
    if right == 1 {
        for (row, line) in lines.iter_mut().enumerate() {
            line[..columns.len()].copy_from_slice(&values[row * down..][columns.clone()]);
        }
        return;
    }
    for (part, first) in columns.clone().step_by(LANES).enumerate() {
        let columns = first..columns.end.min(first + LANES);
        for (lines, start) in lines.chunks_mut(LANES).zip((0..inner).step_by(LANES)) {
            let mut square = [zero(); LANES];
            for (register, column) in square.iter_mut().zip(columns.clone()) {
                let row = &values[column * right..];
                *register = Floats::lanes(row, start..start + lines.len());
            }
            for (line, turned) in lines.iter_mut().zip(transposed(square)) {
                store(&mut line.as_chunks_mut::<LANES>().0[part], turned);
            }
        }
    }
}

/// Writes a tile: at most [`ROWS`] rows of at most [`COLUMNS`] columns.
fn multiply(
    inner: Range<usize>,
    a: View<'_>,
    rows: Range<usize>,
    lines: &[Line],
    out: ViewMut<'_>,
    factor: f32,
) {
    match rows.len() {
        1 => tile::<1>(inner, a, rows, lines, out, factor),
        2 => tile::<2>(inner, a, rows, lines, out, factor),
        3 => tile::<3>(inner, a, rows, lines, out, factor),
        4 => tile::<4>(inner, a, rows, lines, out, factor),
        5 => tile::<5>(inner, a, rows, lines, out, factor),
        _ => tile::<ROWS>(inner, a, rows, lines, out, factor),
    }
}

/// The same of `R` rows.
fn tile<const R: usize>(
    inner: Range<usize>,
    a: View<'_>,
    rows: Range<usize>,
    lines: &[Line],
    mut out: ViewMut<'_>,
    factor: f32,
) {
    let ([down, right], values) = (a.strides(), a.values());
    let lefts: [&[f32]; R] = std::array::from_fn(|row| {
        // Where nothing is summed, a row need not lie within the slice.
        values.get((rows.start + row) * down..).unwrap_or_default()
    });
    let mut sums = [[zero(); REGISTERS]; R];
    for at in inner {
        let (parts, _) = lines[at].as_chunks::<LANES>();
        let lanes: [_; REGISTERS] = std::array::from_fn(|part| load(&parts[part]));
        for (sums, left) in sums.iter_mut().zip(lefts) {
            let factor = broadcast(left[at * right]);
            for (sum, lanes) in sums.iter_mut().zip(lanes) {
                *sum = multiply_add(factor, lanes, *sum);
            }
        }
    }
    let columns = out.sides()[1];
    let factor = broadcast(factor);
    for (row, sums) in sums.iter().enumerate() {
        let mut line = [0.0; COLUMNS];
        for (part, sum) in line.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            store(part, multiply_add(factor, *sum, zero()));
        }
        let place = out.first().wrapping_add(row * out.stride());
        // SAFETY: the view has these elements, and nothing else reaches them.
        unsafe { place.copy_from_nonoverlapping(line.as_ptr(), columns) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{SmallCase, TRIANGLES};
    use super::*;
    use proptest::prelude::*;

    /// Where the processor has the instructions.
    fn check(case: SmallCase) -> Result<(), TestCaseError> {
        let Some(neon) = Neon::detect() else {
            return Ok(());
        };
        case.check(|out, a, b, factor, triangle| product(neon, out, a, b, factor, triangle))
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "it would take hours")]
        fn is_the_sum_of_products(
            rows in 0usize..40, inner in 0usize..40, columns in 0usize..70, extra in 0usize..5,
            turn_a: bool, turn_b: bool, triangle in prop::sample::select(&TRIANGLES[..]),
        ) {
            check(SmallCase { rows, inner, columns, extra, turn_a, turn_b, triangle })?;
        }
    }

    #[test]
    fn edges_of_the_tiles_are_right() -> Result<(), TestCaseError> {
        let [rows, inner, columns] = [ROWS + 1, LANES + 1, COLUMNS + LANES + 1];
        for turn in [false, true] {
            let case = SmallCase {
                rows,
                inner,
                columns,
                extra: 1,
                turn_a: turn,
                turn_b: turn,
                triangle: Triangle::None,
            };
            check(case)?;
            check(SmallCase {
                extra: 0,
                turn_a: !turn,
                triangle: Triangle::Product(0),
                ..case
            })?;
        }
        Ok(())
    }
}
