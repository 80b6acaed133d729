//! The right matrix of bfloat16 where the processor multiplies small matrices of it: two rows of four elements by two columns of
//! four (`bfmmla`). A unit of the inner dimension has these four.

use std::arch::aarch64::{uint16x8_t, vld1q_u16};
use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

use burn::tensor::bf16;

use super::super::aligned::Aligned;
use super::super::blocked::{Begin, Blocks};
use super::super::view::ViewMut;
use super::super::weights::{Bf16, Weights};
use super::kernel::{CHAIN, COLUMNS, ELEMENTS, PANELS, ROWS};
use super::registers::{halves, zero};
use super::{rows, tile};
use crate::ops::flex::instructions::NeonBf16;

/// Elements of a unit.
const DEPTH: usize = 4;
/// One unit of a block's rows: bits of bfloat16.
type Rows = [[u16; DEPTH]; ROWS];
/// One unit of a panel's columns.
type Line = [[u16; DEPTH]; COLUMNS];

thread_local! {
    /// A thread's memory for panels.
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// The right matrix: `[inner, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Quads<'a> {
    bf16: NeonBf16,
    weights: Bf16<'a>,
    /// Rows and columns of the weights, row after row.
    stored: [usize; 2],
    /// Whether these are the transpose, `[columns, inner]`.
    turned: bool,
}

impl<'a> Quads<'a> {
    /// The matrix whose weights lie row after row, or the transpose of that.
    ///
    /// # Panics
    /// When the number of weights is another.
    pub(super) fn new(bf16: NeonBf16, weights: Bf16<'a>, stored: [usize; 2], turned: bool) -> Self {
        assert!(weights.fill(stored));
        Self {
            bf16,
            weights,
            stored,
            turned,
        }
    }

    /// Some elements of the inner dimension of some columns, as the unit of a panel.
    fn line(self, inner: Range<usize>, columns: Range<usize>) -> Line {
        let mut line = [[0; DEPTH]; COLUMNS];
        let width = self.stored[1];
        if self.turned {
            for (to, column) in line.iter_mut().zip(columns) {
                let values = &self.weights.row(column, width)[inner.clone()];
                to.iter_mut()
                    .zip(values)
                    .for_each(|(to, value)| *to = value.to_bits());
            }
        } else {
            for (at, row) in inner.enumerate() {
                let values = &self.weights.row(row, width)[columns.clone()];
                for (to, value) in line.iter_mut().zip(values) {
                    to[at] = value.to_bits();
                }
            }
        }
        line
    }
}

// SAFETY: `add` writes all rows and columns of the tile.
unsafe impl Blocks for Quads<'_> {
    type Rows = Rows;
    type Line = Line;
    type Held = ();

    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const UNITS: usize = ELEMENTS / DEPTH;
    const PANELS: usize = PANELS;

    fn sides(self) -> [usize; 2] {
        let [rows, columns] = self.stored;
        if self.turned {
            [columns, rows]
        } else {
            [rows, columns]
        }
    }

    fn depth(self) -> usize {
        DEPTH
    }

    fn chain(self) -> usize {
        CHAIN / DEPTH
    }

    fn pack(self, left: &[f32]) -> Aligned<Rows> {
        rows::pack(left, self.sides()[0], |value| {
            bf16::from_f32(value).to_bits()
        })
    }

    /// Lanes after the last element of the inner dimension are zeros.
    fn lay_out(self, units: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        let last = self.sides()[0];
        let panels = lines.chunks_exact_mut(units.len());
        for (lines, first) in panels.zip(columns.clone().step_by(COLUMNS)) {
            let columns = first..columns.end.min(first + COLUMNS);
            for (line, unit) in lines.iter_mut().zip(units.clone()) {
                let inner = unit * DEPTH..last.min((unit + 1) * DEPTH);
                *line = self.line(inner, columns.clone());
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
        _next: *const Rows,
    ) {
        let sums = sums(self.bf16, rows, lines);
        // SAFETY: as the caller promises.
        unsafe { tile::finish(tile, begin, &sums) }
    }

    fn memory() -> &'static LocalKey<RefCell<Vec<Line>>> {
        &LINES
    }
}

/// Products of a block's rows with a panel's lines, unit after unit.
#[inline(always)]
fn sums(bf16: NeonBf16, rows: &[Rows], lines: &[Line]) -> tile::Sums {
    // Of two rows, and two columns: both columns of the first row, and those of the second.
    let mut squares = [[zero(); COLUMNS / 2]; ROWS / 2];
    for (rows, line) in rows.iter().zip(lines) {
        let (pairs, _) = rows.as_chunks::<2>();
        let left: [uint16x8_t; ROWS / 2] = std::array::from_fn(|at| pair(&pairs[at]));
        let (columns, _) = line.as_chunks::<2>();
        for at in 0..COLUMNS / 2 {
            let right = pair(&columns[at]);
            for (squares, left) in squares.iter_mut().zip(left) {
                squares[at] = bf16.multiply_add(left, right, squares[at]);
            }
        }
    }
    let mut sums = [[zero(); COLUMNS / 4]; ROWS];
    for (squares, rows) in squares.iter().zip(sums.as_chunks_mut::<2>().0) {
        for (at, neighbours) in squares.as_chunks::<2>().0.iter().enumerate() {
            [rows[0][at], rows[1][at]] = halves(neighbours[0], neighbours[1]);
        }
    }
    sums
}

#[inline(always)]
fn pair(rows: &[[u16; DEPTH]; 2]) -> uint16x8_t {
    // SAFETY: every processor that this is compiled for has NEON, and there are as many numbers as are read.
    unsafe { vld1q_u16(rows.as_flattened().as_ptr()) }
}
