//! The right matrix of 32-bit floats and how it is laid out.

use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

use super::super::aligned::Aligned;
use super::super::blocked::{Begin, Blocks};
use super::super::view::ViewMut;
use super::kernel::{CHAIN, COLUMNS, ELEMENTS, LANES, PANELS, ROWS};
use super::lanes::{Lanes, rounded};
use super::registers::{store, transposed, zero};
use super::{rows, tile};
use crate::ops::flex::instructions::Neon;

/// One element of a block's rows.
pub(super) type Rows = [[f32; 1]; ROWS];
/// One row of a panel's columns.
pub(super) type Line = [f32; COLUMNS];

thread_local! {
    /// A thread's memory for panels.
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// The right matrix: `[inner, columns]`.
#[derive(Clone, Copy)]
pub(in crate::ops::flex::products) struct Right<W> {
    pub(super) weights: W,
    /// Rows and columns of the weights, row after row.
    pub(super) stored: [usize; 2],
    /// Whether these are the transpose, `[columns, inner]`.
    pub(super) turned: bool,
}

impl<W: Lanes> Right<W> {
    /// The matrix whose weights lie row after row, or the transpose of that.
    ///
    /// # Panics
    /// When the number of weights is another.
    pub(super) fn new(_neon: Neon, weights: W, stored: [usize; 2], turned: bool) -> Self {
        assert!(weights.fill(stored));
        Self {
            weights,
            stored,
            turned,
        }
    }

    /// The inner dimension and the number of columns.
    pub(super) fn sides(&self) -> [usize; 2] {
        let [rows, columns] = self.stored;
        if self.turned {
            [columns, rows]
        } else {
            [rows, columns]
        }
    }

    /// Of a matrix that lies row after row: lines are pieces of its rows.
    fn lay_out_rows(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        let count = units.len();
        for (at, unit) in units.enumerate() {
            let row = self.weights.row(unit, self.stored[1]);
            for (panel, first) in columns.clone().step_by(COLUMNS).enumerate() {
                let last = columns.end.min(first + COLUMNS);
                let (parts, _) = lines[panel * count + at].as_chunks_mut::<LANES>();
                for (part, first) in parts.iter_mut().zip((first..last).step_by(LANES)) {
                    store(part, W::lanes(row, first..last.min(first + LANES)));
                }
            }
        }
    }

    /// Of a transpose: a column's values lie one after the other, and squares of them are turned.
    fn lay_out_columns(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        let (count, width) = (units.len(), self.stored[1]);
        for (part, first) in columns.clone().step_by(LANES).enumerate() {
            let (panel, part) = (part / (COLUMNS / LANES), part % (COLUMNS / LANES));
            let lines = &mut lines[panel * count..][..count];
            let columns = first..columns.end.min(first + LANES);
            for (lines, start) in lines.chunks_mut(LANES).zip(units.clone().step_by(LANES)) {
                let mut square = [zero(); LANES];
                for (register, column) in square.iter_mut().zip(columns.clone()) {
                    let row = self.weights.row(column, width);
                    *register = W::lanes(row, start..start + lines.len());
                }
                for (line, turned) in lines.iter_mut().zip(transposed(square)) {
                    let (parts, _) = line.as_chunks_mut::<LANES>();
                    store(&mut parts[part], turned);
                }
            }
        }
    }
}

// SAFETY: `add` writes all rows and columns of the tile.
unsafe impl<W: Lanes> Blocks for Right<W> {
    type Rows = Rows;
    type Line = Line;
    type Held = ();

    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const UNITS: usize = ELEMENTS;
    const PANELS: usize = PANELS;

    fn sides(self) -> [usize; 2] {
        Right::sides(&self)
    }

    fn depth(self) -> usize {
        1
    }

    fn chain(self) -> usize {
        CHAIN
    }

    fn pack(self, left: &[f32]) -> Aligned<Rows> {
        let inner = Right::sides(&self)[0];
        if W::ROUNDS {
            rows::pack(left, inner, rounded)
        } else {
            rows::pack(left, inner, |value| value)
        }
    }

    fn lay_out(self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        if self.turned {
            self.lay_out_columns(units, columns, lines)
        } else {
            self.lay_out_rows(units, columns, lines)
        }
    }

    fn hold(self) {}

    unsafe fn add(
        self,
        (): &(),
        tile: ViewMut<'_>,
        begin: Begin<'_>,
        rows: &[Rows],
        lines: &[Line],
        _next: *const Rows,
    ) {
        let sums = tile::sums(rows, lines);
        // SAFETY: as the caller promises.
        unsafe { tile::finish(tile, begin, &sums) }
    }

    fn memory() -> &'static LocalKey<RefCell<Vec<Line>>> {
        &LINES
    }
}
