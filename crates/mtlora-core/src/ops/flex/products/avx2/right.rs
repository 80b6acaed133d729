//! The right matrix and how it is laid out.

use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm256_setzero_ps};
use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

use super::super::aligned::Aligned;
use super::super::blocked::{Begin, Blocks};
use super::super::view::ViewMut;
use super::kernel::{CHAIN, COLUMNS, LANES, Line, PANELS, ROWS, Rows, UNITS};
use super::transpose::transposed;
use super::weights::Lanes;
use super::{rows, tile};
use crate::ops::flex::instructions::Avx2;

/// How many rows ahead of the one that is laid out are prefetched.
const AHEAD: usize = 6;
/// Floats of a cache line.
const CACHE_LINE: usize = 16;

thread_local! {
    /// A thread's memory for panels.
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// The right matrix: `[inner, columns]`.
#[derive(Clone, Copy)]
pub(in crate::ops::flex::products) struct Right<W> {
    pub(super) avx2: Avx2,
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
    pub(super) fn new(avx2: Avx2, weights: W, stored: [usize; 2], turned: bool) -> Self {
        assert!(weights.fill(stored));
        Self {
            avx2,
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
    #[target_feature(enable = "avx2")]
    fn lay_out_rows(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        let (count, width) = (units.len(), self.stored[1]);
        for (at, unit) in units.enumerate() {
            for column in columns.clone().step_by(CACHE_LINE) {
                let place = self.weights.place((unit + AHEAD) * width + column);
                _mm_prefetch::<_MM_HINT_T0>(place);
            }
            let row = self.weights.row(unit, width);
            for (half, first) in columns.clone().step_by(LANES).enumerate() {
                let (halves, _) = lines[half / 2 * count + at].as_chunks_mut::<LANES>();
                let columns = first..columns.end.min(first + LANES);
                // SAFETY: this function has the instructions.
                halves[half % 2] = pulp::cast(unsafe { W::lanes(row, columns) });
            }
        }
    }

    /// Of a transpose: a column's values lie one after the other, and squares of them are turned.
    #[target_feature(enable = "avx2")]
    fn lay_out_columns(&self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        let (count, width) = (units.len(), self.stored[1]);
        for (half, first) in columns.clone().step_by(LANES).enumerate() {
            let lines = &mut lines[half / 2 * count..][..count];
            let columns = first..columns.end.min(first + LANES);
            for (lines, start) in lines.chunks_mut(LANES).zip(units.clone().step_by(LANES)) {
                if start.is_multiple_of(CACHE_LINE) {
                    // The square below: its rows lie too far apart for the processor to foresee them.
                    for column in columns.end..columns.end + LANES {
                        let place = self.weights.place(column * width + start);
                        _mm_prefetch::<_MM_HINT_T1>(place);
                    }
                }
                let mut square = [_mm256_setzero_ps(); LANES];
                for (register, column) in square.iter_mut().zip(columns.clone()) {
                    let row = self.weights.row(column, width);
                    // SAFETY: this function has the instructions.
                    *register = unsafe { W::lanes(row, start..start + lines.len()) };
                }
                for (line, turned) in lines.iter_mut().zip(&transposed(square)) {
                    let (halves, _) = line.as_chunks_mut::<LANES>();
                    halves[half % 2] = pulp::cast(*turned);
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
    const UNITS: usize = UNITS;
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
        rows::pack(self.avx2, left, Right::sides(&self)[0], W::ROUNDS)
    }

    fn lay_out(self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        // SAFETY: `self.avx2` proves that the processor has the instructions.
        unsafe {
            if self.turned {
                self.lay_out_columns(units, columns, lines)
            } else {
                self.lay_out_rows(units, columns, lines)
            }
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
        next: *const Rows,
    ) {
        // SAFETY: as the caller promises.
        unsafe { tile::add(self.avx2, tile, begin, rows, lines, next) }
    }

    fn memory() -> &'static LocalKey<RefCell<Vec<Line>>> {
        &LINES
    }
}
