//! A linear layer's product on AVX-512, in 32-bit floats or with pairs of bfloat16 (`vdpbf16ps`,
//! which does twice the work of a multiplication of 32-bit floats). Sums are 32-bit floats.
//!
//! Blocked as in BLIS (Van Zee and van de Geijn, 2015): the right matrix is laid out in panels of
//! [`COLUMNS`] columns, the left one in blocks of [`ROWS`] rows, and a tile of `ROWS x COLUMNS` sums
//! stays in registers. A task lays out the panels that it reads in the second cache, so that the
//! weight is read once and written nowhere else; the bias is where the sums begin, so that the output
//! is written without being filled first. A sum runs over the inner dimension in the same order
//! whatever the number of threads.

pub(super) mod direct;
mod gemv;
mod kernel;
mod pairs;
mod right;
mod rows;
mod tile;
mod transpose;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::view::Place;
use kernel::{COLUMNS, Line, PANELS, ROWS, Rows, UNITS};
pub(super) use right::{Right, Values};
use tile::Begin;

/// Below this many products, threads cost more than they bring. Under Miri, which is too slow for as many, threads
/// share even small products, so that it checks them.
const WORTH_THREADS: usize = if cfg!(miri) { 1 } else { 1 << 18 };

thread_local! {
    /// A thread's memory for panels, from product to product.
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// `left right + bias`: `[rows, columns]`. `left`: `[rows, inner]`, rounded to bfloat16 where `right`
/// is of it; `bias`: `[columns]`.
///
/// # Panics
/// When the shapes do not fit.
pub(super) fn product(left: &[f32], right: Right<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    let kernel = right.kernel();
    let [inner, columns] = right.sides();
    assert!(inner > 0 && left.len().is_multiple_of(inner));
    assert!(bias.is_none_or(|bias| bias.len() == columns));
    let rows = left.len() / inner;
    let size = rows * columns;
    if size == 0 {
        return Vec::new();
    }
    match right.floats() {
        Some((values, false)) if rows <= gemv::MOST => {
            return gemv::product(right.avx512(), left, values, columns, bias);
        }
        Some((values, true)) if rows <= gemv::MOST => {
            return gemv::turned_product(right.avx512(), left, values, inner, bias);
        }
        _ => {}
    }
    let mut out: Vec<f32> = Vec::with_capacity(size);
    let units = inner.div_ceil(kernel.depth());
    let place = Place::new(&mut out.spare_capacity_mut()[..size], columns);
    let work = Work {
        right,
        bias,
        passes: passes(units),
        packed: rows::pack(left, inner, kernel),
        units,
        place,
        rows,
    };
    let threads = if size * inner < WORTH_THREADS {
        1
    } else {
        rayon::current_num_threads()
    };
    let panels = columns.div_ceil(COLUMNS);
    let per_task = (panels / (2 * threads)).clamp(1, PANELS);
    let groups = panels.div_ceil(per_task);
    // Each part of the rows lays the panels out for itself. That pays where there are fewer groups of panels than
    // threads, and where there are enough rows that it costs less than threads that wait for the last task.
    let blocks = rows.div_ceil(ROWS);
    let needed = (2 * threads).div_ceil(groups).min(blocks.div_ceil(4));
    let wanted = (6 * threads).div_ceil(groups).min(blocks / 40);
    let parts = needed.max(wanted).max(1);
    let per_part = blocks.div_ceil(parts);
    let task = |index: usize| {
        let (group, part) = (index / parts, index % parts);
        let panels = group * per_task..panels.min((group + 1) * per_task);
        let blocks = blocks.min(part * per_part)..blocks.min((part + 1) * per_part);
        LINES.with_borrow_mut(|lines| work.task(lines, panels, blocks));
    };
    match threads {
        1 => (0..groups * parts).for_each(task),
        _ => (0..groups * parts)
            .into_par_iter()
            .with_max_len(1)
            .for_each(task),
    }
    // SAFETY: the tasks are all panels by all blocks of rows; each has written all its elements.
    unsafe { out.set_len(size) };
    out
}

/// What all tasks read, and where they write.
struct Work<'a> {
    right: Right<'a>,
    bias: Option<&'a [f32]>,
    passes: Vec<Range<usize>>,
    /// Block after block, each of `units` units.
    packed: Vec<Rows>,
    units: usize,
    place: Place<'a>,
    rows: usize,
}

impl Work<'_> {
    /// Writes some panels' columns of some blocks' rows. `lines` is memory for the panels.
    fn task(&self, lines: &mut Vec<Line>, panels: Range<usize>, blocks: Range<usize>) {
        let kernel = self.right.kernel();
        let chain = kernel.chain();
        let last = self.right.sides()[1];
        let columns = panels.start * COLUMNS..last.min(panels.end * COLUMNS);
        for (index, pass) in self.passes.iter().enumerate() {
            let count = panels.len() * pass.len();
            if lines.len() < count {
                lines.resize(count, [0; COLUMNS]);
            }
            let lines = &mut lines[..count];
            self.right.lay_out(pass.clone(), columns.clone(), lines);
            for block in blocks.clone() {
                let rows = block * ROWS..self.rows.min((block + 1) * ROWS);
                let packed = &self.packed[block * self.units..][pass.clone()];
                // Each panel has a part of the next block fetched, from where other tasks have left it.
                let next = packed.as_ptr().wrapping_add(self.units);
                for (part, lines) in lines.chunks_exact(pass.len()).enumerate() {
                    let panel = panels.start + part;
                    let next = next.wrapping_add(part * pass.len() / PANELS);
                    let columns = panel * COLUMNS..last.min((panel + 1) * COLUMNS);
                    let begin = match (index, self.bias) {
                        (0, Some(bias)) => Begin::Bias(&bias[columns.clone()]),
                        (0, None) => Begin::Zero,
                        _ => Begin::Sum,
                    };
                    let chains = packed.chunks(chain).zip(lines.chunks(chain));
                    for (at, (packed, lines)) in chains.enumerate() {
                        let begin = if at == 0 { begin } else { Begin::Sum };
                        let next = next.wrapping_add(at * chain / PANELS);
                        // SAFETY: no other task has these columns of these rows; where sums are begun
                        // with what is there, a chain or a pass before has written it.
                        unsafe {
                            let tile = self.place.view(rows.clone(), columns.clone());
                            tile::add(kernel, tile, begin, packed, lines, next);
                        }
                    }
                }
            }
        }
    }
}

/// The units that are summed in each pass: parts of about one size.
fn passes(units: usize) -> Vec<Range<usize>> {
    let step = units.div_ceil(units.div_ceil(UNITS));
    (0..units)
        .step_by(step)
        .map(|first| first..units.min(first + step))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::instructions::{Avx512, Avx512Bf16};
    use super::kernel::LANES;
    use super::*;
    use burn::tensor::bf16;
    use proptest::prelude::*;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    /// Small whole numbers: exact in any order, and as bfloat16.
    fn whole(count: usize, step: usize) -> impl Iterator<Item = i8> {
        (0..count).map(move |at| (at * step % 17) as i8 - 8)
    }

    /// How the right matrix is kept.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Form {
        F32,
        Bf16,
        Int8,
    }

    const FORMS: [Form; 3] = [Form::F32, Form::Bf16, Form::Int8];

    /// A product of whole numbers against the sums, where the processor has the instructions.
    fn check(
        [rows, inner, columns]: [usize; 3],
        form: Form,
        turned: bool,
        biased: bool,
        threads: usize,
    ) -> Result<(), TestCaseError> {
        let Some(avx512) = Avx512::new() else {
            return Ok(());
        };
        let floats = |count, step| -> Vec<f32> { whole(count, step).map(f32::from).collect() };
        let left = floats(rows * inner, 5);
        let bias = floats(columns, 3);
        let stored = if turned {
            [columns, inner]
        } else {
            [inner, columns]
        };
        let block = 3;
        let integers: Vec<i8> = whole(inner * columns, 7).collect();
        let scales: Vec<f32> = (0..stored[0].div_ceil(block) * stored[1])
            .map(|at| 0.5 * (at % 3) as f32)
            .collect();
        let dense: Vec<f32> = integers
            .iter()
            .enumerate()
            .map(|(at, integer)| {
                let (row, column) = (at / stored[1], at % stored[1]);
                let scale = match form {
                    Form::Int8 => scales[row / block * stored[1] + column],
                    Form::F32 | Form::Bf16 => 1.0,
                };
                f32::from(*integer) * scale
            })
            .collect();
        let halves: Vec<bf16> = dense.iter().map(|x| bf16::from_f32(*x)).collect();
        let values = match form {
            Form::F32 => Values::F32(&dense),
            Form::Bf16 => match Avx512Bf16::new() {
                Some(proof) => Values::Bf16(proof, &halves),
                None => return Ok(()),
            },
            Form::Int8 => Values::Int8 {
                integers: &integers,
                scales: &scales,
                block,
            },
        };
        let right = Right::new(avx512, values, stored);
        let right = if turned { right.t() } else { right };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let out = pool.install(|| product(&left, right, biased.then_some(&bias)));
        prop_assert_eq!(out.len(), rows * columns);
        for (at, found) in out.iter().enumerate() {
            let (row, column) = (at / columns, at % columns);
            let sum: f32 = (0..inner)
                .map(|k| {
                    let right = if turned {
                        column * inner + k
                    } else {
                        k * columns + column
                    };
                    left[row * inner + k] * dense[right]
                })
                .sum();
            prop_assert_eq!(*found, sum + if biased { bias[column] } else { 0.0 });
        }
        Ok(())
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "it would take hours")]
        fn is_the_sum_of_products(
            rows in 1usize..70, inner in 1usize..70, columns in 1usize..70,
            long: bool, tall: bool, wide: bool, turned: bool, biased: bool,
            form in prop::sample::select(&FORMS[..]), threads in 1usize..4,
        ) {
            // More than one pass, more rows than are packed at once, and more columns than a task has.
            let inner = if long { inner + 2 * UNITS } else { inner };
            let rows = if tall { rows + 8 * ROWS } else { rows };
            let columns = if wide { columns + gemv::WIDTH } else { columns };
            check([rows, inner, columns], form, turned, biased, threads)?;
        }
    }

    /// One more than fills a register, a panel, a pass, or the panels of a task.
    #[test]
    fn edges_of_the_blocks_are_right() -> Result<(), TestCaseError> {
        let shapes = [
            [1, 1, 1],
            [1, LANES + 1, COLUMNS + 1],
            [1, 2 * UNITS + 1, 1],
            [ROWS + 1, 1, COLUMNS - 1],
            [ROWS + 1, 3, COLUMNS + 1],
            [ROWS + 1, 2, PANELS * COLUMNS + 1],
            [ROWS + 1, 2 * UNITS + 1, COLUMNS + 1],
            [8 * ROWS + 1, 3, COLUMNS + 1],
            [gemv::MOST, 2, gemv::WIDTH + 1],
        ];
        // Miri takes a minute for the first five, and hours for all.
        let count = if cfg!(miri) { 5 } else { shapes.len() };
        for (index, shape) in shapes.into_iter().take(count).enumerate() {
            for form in FORMS {
                for turned in [false, true] {
                    check(shape, form, turned, index % 2 == 0, 1)?;
                }
            }
        }
        Ok(())
    }

    /// The error of a sum is as of chains of 384; of one chain of 768 it would be 5.1e-7.
    #[test]
    #[cfg_attr(miri, ignore = "it would take hours")]
    fn long_sums_are_close() {
        const INNER: usize = 768;
        let Some(avx512) = Avx512::new() else {
            return;
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut random = |count| -> Vec<f32> {
            (0..count)
                .map(|_| 2.0 * rng.random::<f32>() - 1.0)
                .collect()
        };
        let (left, right) = (random(4 * ROWS * INNER), random(INNER * 2 * COLUMNS));
        let sides = [INNER, 2 * COLUMNS];
        let out = product(&left, Right::new(avx512, Values::F32(&right), sides), None);
        let (mut errors, mut squares) = (0.0, 0.0);
        for (at, found) in out.iter().enumerate() {
            let (row, column) = (at / (2 * COLUMNS), at % (2 * COLUMNS));
            let exact: f64 = (0..INNER)
                .map(|k| {
                    let right = right[k * 2 * COLUMNS + column];
                    f64::from(left[row * INNER + k]) * f64::from(right)
                })
                .sum();
            errors += (f64::from(*found) - exact).powi(2);
            squares += exact.powi(2);
        }
        let error = (errors / squares).sqrt();
        assert!(error < 4.2e-7, "{error}");
    }

    /// Enough work for threads, which share the output.
    #[test]
    fn tasks_write_beside_each_other() -> Result<(), TestCaseError> {
        let shape = if cfg!(miri) {
            [ROWS + 1, 2, 3 * COLUMNS + 1]
        } else {
            [8 * ROWS + 1, LANES + 1, 5 * COLUMNS + 1]
        };
        assert!(shape.iter().product::<usize>() >= WORTH_THREADS);
        for (form, turned) in FORMS.into_iter().zip([false, true, true]) {
            check(shape, form, turned, true, 2)?;
        }
        Ok(())
    }

    /// The last inputs do not fill a unit: what the memory holds after them must not count.
    #[test]
    fn nothing_after_the_last_input_counts() {
        let (Some(avx512), Some(proof)) = (Avx512::new(), Avx512Bf16::new()) else {
            return;
        };
        let values = [f32::NAN, 1.0, 2.0, 3.0, f32::NAN].map(bf16::from_f32);
        for turned in [false, true] {
            let right = Right::new(
                avx512,
                Values::Bf16(proof, &values[1..4]),
                if turned { [1, 3] } else { [3, 1] },
            );
            let right = if turned { right.t() } else { right };
            assert_eq!(product(&[1.0, 2.0, 4.0], right, None), [17.0]);
        }
    }
}
