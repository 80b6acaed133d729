//! A linear layer's product of many rows, whatever the instruction set.
//!
//! Blocked as in BLIS (Van Zee and van de Geijn, 2015): the right matrix is laid out in panels of columns, the left one in
//! blocks of rows, and a tile of a block's rows and a panel's columns stays in registers. A task lays out the panels that it
//! reads in the second cache, so that the weight is read once and written nowhere else; the bias is where the sums begin, so
//! that the output is written without being filled first. A sum runs over the inner dimension in the same order whatever
//! the number of threads.

use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

use rayon::prelude::*;

use super::WORTH_THREADS;
use super::aligned::Aligned;
use super::view::{Place, ViewMut};

/// What sums begin with.
#[derive(Clone, Copy)]
pub(super) enum Begin<'a> {
    Zero,
    /// Each row with this, as long as the tile's rows.
    Bias(&'a [f32]),
    /// What is in the tile.
    Sum,
}

/// A right matrix, `[inner, columns]`, as an instruction set multiplies with it. The inner dimension is in units, of which
/// each holds as many of its elements as one instruction multiplies.
///
/// # Safety
/// [`add`](Self::add) writes every element of its tile: the product is memory that nothing else has written.
pub(super) unsafe trait Blocks: Copy + Sync {
    /// One unit of a block's rows.
    type Rows: Copy + Send + Sync;
    /// One unit of a panel's columns.
    type Line: Copy + Default + 'static;
    /// What a thread has to hold while it computes a task.
    type Held;

    /// Rows of a tile.
    const ROWS: usize;
    /// Columns of a tile.
    const COLUMNS: usize;
    /// Units that are summed in one pass: with fewer, the output would come from memory more often; with more, a task's
    /// panels would leave the second cache.
    const UNITS: usize;
    /// The most panels of a task: with a block of rows they stay in the second cache.
    const PANELS: usize;

    /// The inner dimension and the number of columns.
    fn sides(self) -> [usize; 2];

    /// Elements of the inner dimension in a unit.
    fn depth(self) -> usize;

    /// Units that are added up one by one before the sum goes to the output: its error grows with them.
    fn chain(self) -> usize;

    /// The rows of a left matrix in blocks: of each, unit after unit, and below the last row zeros.
    fn pack(self, left: &[f32]) -> Aligned<Self::Rows>;

    /// Lays out some columns, the first of which begins a panel: in `lines` panel after panel, of each the `units`. Lanes
    /// after the last column stay as they are.
    fn lay_out(self, units: Range<usize>, columns: Range<usize>, lines: &mut [Self::Line]);

    /// What this thread has to hold for [`add`](Self::add).
    fn hold(self) -> Self::Held;

    /// Writes the start and the products of `rows` with a panel's `lines` to the tile, and has the share of a panel of
    /// what begins at `next` fetched: rows that come later.
    ///
    /// # Safety
    /// With [`Begin::Sum`], the tile's elements have been written. It has at most [`ROWS`](Self::ROWS) rows and
    /// [`COLUMNS`](Self::COLUMNS) columns.
    unsafe fn add(
        self,
        held: &Self::Held,
        tile: ViewMut<'_>,
        begin: Begin<'_>,
        rows: &[Self::Rows],
        lines: &[Self::Line],
        next: *const Self::Rows,
    );

    /// A thread's memory for panels, from product to product.
    fn memory() -> &'static LocalKey<RefCell<Vec<Self::Line>>>;
}

/// `left right + bias`: `[rows, columns]`. `left`: `[rows, inner]`; `bias`: `[columns]`.
///
/// # Panics
/// When the shapes do not fit.
pub(super) fn product<B: Blocks>(left: &[f32], right: B, bias: Option<&[f32]>) -> Vec<f32> {
    let [inner, _] = right.sides();
    assert!(inner > 0 && left.len().is_multiple_of(inner));
    packed_product(right.pack(left), left.len() / inner, right, bias)
}

/// The same for a left matrix of `rows` rows that lies in blocks already.
///
/// # Panics
/// When the shapes do not fit.
pub(super) fn packed_product<B: Blocks>(
    packed: Aligned<B::Rows>,
    rows: usize,
    right: B,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let [inner, columns] = right.sides();
    assert!(bias.is_none_or(|bias| bias.len() == columns));
    let units = inner.div_ceil(right.depth());
    assert_eq!(packed.len(), units * rows.div_ceil(B::ROWS));
    let size = rows * columns;
    if size == 0 {
        return Vec::new();
    }
    let mut out: Vec<f32> = Vec::with_capacity(size);
    let place = Place::new(&mut out.spare_capacity_mut()[..size], columns);
    let work = Work {
        right,
        bias,
        passes: passes(units, B::UNITS),
        packed,
        units,
        place,
        rows,
    };
    let threads = if size * inner < WORTH_THREADS {
        1
    } else {
        rayon::current_num_threads()
    };
    let panels = columns.div_ceil(B::COLUMNS);
    let per_task = (panels / (2 * threads)).clamp(1, B::PANELS);
    let groups = panels.div_ceil(per_task);
    // Each part of the rows lays the panels out for itself. That pays where there are fewer groups of panels than
    // threads, and where there are enough rows that it costs less than threads that wait for the last task.
    let blocks = rows.div_ceil(B::ROWS);
    let needed = (2 * threads).div_ceil(groups).min(blocks.div_ceil(4));
    let wanted = (6 * threads).div_ceil(groups).min(blocks / (480 / B::ROWS));
    let parts = needed.max(wanted).max(1);
    let per_part = blocks.div_ceil(parts);
    let task = |index: usize| {
        let (group, part) = (index / parts, index % parts);
        let panels = group * per_task..panels.min((group + 1) * per_task);
        let blocks = blocks.min(part * per_part)..blocks.min((part + 1) * per_part);
        B::memory().with_borrow_mut(|lines| work.task(lines, panels, blocks));
    };
    match threads {
        1 => (0..groups * parts).for_each(task),
        _ => (0..groups * parts)
            .into_par_iter()
            .with_max_len(1)
            .for_each(task),
    }
    // SAFETY: the tasks are all panels by all blocks of rows; `Blocks::add` has written all
    // elements of each.
    unsafe { out.set_len(size) };
    out
}

/// What all tasks read, and where they write.
struct Work<'a, B: Blocks> {
    right: B,
    bias: Option<&'a [f32]>,
    passes: Vec<Range<usize>>,
    /// Block after block, each of `units` units.
    packed: Aligned<B::Rows>,
    units: usize,
    place: Place<'a>,
    rows: usize,
}

impl<B: Blocks> Work<'_, B> {
    /// Writes some panels' columns of some blocks' rows. `lines` is memory for the panels.
    fn task(&self, lines: &mut Vec<B::Line>, panels: Range<usize>, blocks: Range<usize>) {
        let chain = self.right.chain();
        let last = self.right.sides()[1];
        let held = self.right.hold();
        let columns = panels.start * B::COLUMNS..last.min(panels.end * B::COLUMNS);
        for (index, pass) in self.passes.iter().enumerate() {
            let count = panels.len() * pass.len();
            if lines.len() < count {
                lines.resize(count, B::Line::default());
            }
            let lines = &mut lines[..count];
            self.right.lay_out(pass.clone(), columns.clone(), lines);
            for block in blocks.clone() {
                let rows = block * B::ROWS..self.rows.min((block + 1) * B::ROWS);
                let packed = &self.packed[block * self.units..][pass.clone()];
                // Each panel has a part of the next block fetched, from where other tasks have left it.
                let next = packed.as_ptr().wrapping_add(self.units);
                for (part, lines) in lines.chunks_exact(pass.len()).enumerate() {
                    let panel = panels.start + part;
                    let next = next.wrapping_add(part * pass.len() / panels.len());
                    let columns = panel * B::COLUMNS..last.min((panel + 1) * B::COLUMNS);
                    let begin = match (index, self.bias) {
                        (0, Some(bias)) => Begin::Bias(&bias[columns.clone()]),
                        (0, None) => Begin::Zero,
                        _ => Begin::Sum,
                    };
                    let chains = packed.chunks(chain).zip(lines.chunks(chain));
                    for (at, (packed, lines)) in chains.enumerate() {
                        let begin = if at == 0 { begin } else { Begin::Sum };
                        let next = next.wrapping_add(at * chain / panels.len());
                        // SAFETY: no other task has these columns of these rows; where sums are begun
                        // with what is there, a chain or a pass before has written it.
                        unsafe {
                            let tile = self.place.view(rows.clone(), columns.clone());
                            self.right.add(&held, tile, begin, packed, lines, next);
                        }
                    }
                }
            }
        }
    }
}

/// The units that are summed in each pass: parts of about one size, of at most `most`.
fn passes(units: usize, most: usize) -> Vec<Range<usize>> {
    let step = units.div_ceil(units.div_ceil(most));
    (0..units)
        .step_by(step)
        .map(|first| first..units.min(first + step))
        .collect()
}
