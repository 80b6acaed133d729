//! Attention of one head of one sequence at a time, read from and written to the packed batch where it
//! lies. No score matrix outlives its task, and that of a long sequence is made a block of rows at a time, so that memory
//! grows with the length and not with its square (except with relative positions). The backward pass computes the probabilities
//! again. Where heads of the query share a head of key and value, one task has them all in the backward pass and adds up their gradients.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::elementwise::dropout::drop_elements;
use super::instructions::vectorized;
use super::products::matmul::{rounded_matmul, small_matmul};
use super::products::triangle::Triangle;
use super::products::view::{Place, View, ViewMut};
use super::reduce::{largest, sum_of};
use super::relative_bands::{self, BandBuffers, HeadViews};
use super::{contiguous, tensor, values};
use crate::ops::AttentionLayout;
use crate::ops::definitions::attention::Inputs;
use crate::ops::vecmath::exp;
use crate::ops::{ActivationDtype, SeededDropout};

/// The rows of the scores that are made at a time in sequences of more than [`WHOLE`] tokens.
const ROWS: usize = 128;

/// The most tokens of a sequence whose scores are made at once.
const WHOLE: usize = 256;

/// One head of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Task {
    /// The sequence's first token.
    start: usize,
    /// Number of its tokens.
    length: usize,
    pub(super) head: usize,
    /// The index of its first entry in the dropout's mask.
    entry: usize,
}

/// Some rows of a task's scores, and the columns that at least one of them sees.
#[derive(Clone, Debug, PartialEq)]
struct Block {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Block {
    fn sides(&self) -> [usize; 2] {
        [self.rows.len(), self.columns.len()]
    }
}

/// The heads of the query in each sequence: those that share a head of key and value follow each other.
pub(super) fn tasks(layout: &AttentionLayout) -> Vec<Task> {
    let (mut tasks, mut entry) = (Vec::new(), 0);
    let lengths = layout.offsets.lengths();
    for (start, length) in layout.offsets.starts().iter().zip(lengths) {
        for head in 0..layout.heads {
            tasks.push(Task {
                start: *start,
                length,
                head,
                entry,
            });
            entry += length * length;
        }
    }
    tasks
}

/// The rows of a packed batch: `[tokens, heads * head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct Sequences<'a> {
    values: &'a [f32],
    /// The distance from one row to the next, which is larger than the row's width if other rows lie beside it.
    stride: usize,
    head_dim: usize,
}

impl<'a> Sequences<'a> {
    pub(super) fn new(tensor: &'a FlexTensor, head_dim: usize) -> Self {
        let layout = tensor.layout();
        Self {
            values: &tensor.storage::<f32>()[layout.start_offset()..],
            stride: layout.strides()[0].unsigned_abs(),
            head_dim,
        }
    }

    /// A head of a sequence: `[length, head_dim]`.
    fn view(&self, task: Task) -> View<'a> {
        let from = task.start * self.stride + task.head * self.head_dim;
        let sides = [task.length, self.head_dim];
        View::new(&self.values[from..], sides, self.stride)
    }
}

/// The tensors and settings that all tasks read.
pub(super) struct PackedInputs<'a> {
    query: Sequences<'a>,
    key: Sequences<'a>,
    value: Sequences<'a>,
    /// The tables of relative positions, each for sequences of up to `longest` tokens.
    tables: [Option<Sequences<'a>>; 2],
    longest: usize,
    keep: Option<&'a [f32]>,
    dropout: Option<SeededDropout>,
    /// Elements of a row.
    width: usize,
    pub(super) head_dim: usize,
    /// How many heads of the query share a head of key and value.
    pub(super) sharing: usize,
    scale: f32,
    seen: Seen,
    saved: ActivationDtype,
}

impl PackedInputs<'_> {
    /// `factor a b` into `out`, of factors rounded as the saved inputs are.
    fn product(&self, out: ViewMut<'_>, a: View<'_>, b: View<'_>, factor: f32, triangle: Triangle) {
        match self.saved {
            ActivationDtype::F32 => small_matmul(out, a, b, factor, triangle),
            ActivationDtype::Bf16 => rounded_matmul(out, a, b, factor, triangle),
        }
    }

    /// Whether the probabilities are multiplied with a mask.
    fn drops(&self) -> bool {
        self.keep.is_some() || self.dropout.is_some()
    }

    /// Multiplies a matrix as large as a block of the scores with the mask.
    fn drop(&self, task: Task, block: &Block, matrix: &mut [f32]) {
        if !self.drops() {
            return;
        }
        // Whole rows lie one after the other in the mask.
        let step = match block.columns.len() == task.length {
            true => matrix.len(),
            false => block.columns.len(),
        };
        let first = task.entry + block.rows.start * task.length + block.columns.start;
        for (row, part) in matrix.chunks_exact_mut(step).enumerate() {
            let entry = first + row * task.length;
            if let Some(keep) = self.keep {
                times(part, &keep[entry..][..part.len()]);
            }
            if let Some(dropout) = self.dropout {
                drop_elements(part, entry, dropout);
            }
        }
    }

    /// Under a causal mask the triangle of a block of the scores, else none.
    fn if_causal(&self, triangle: impl FnOnce(usize) -> Triangle, block: &Block) -> Triangle {
        if self.seen.causal {
            triangle(block.rows.start - block.columns.start)
        } else {
            Triangle::None
        }
    }

    /// Whether all rows of the task's scores are one block. Relative positions are added to whole matrices.
    fn is_whole(&self, task: Task) -> bool {
        task.length <= WHOLE || self.tables.iter().any(Option::is_some)
    }

    /// The rows of a task's scores, block after block.
    fn blocks(&self, task: Task) -> impl Iterator<Item = Block> {
        let length = task.length;
        let step = if self.is_whole(task) { length } else { ROWS };
        let seen = self.seen;
        (0..length).step_by(step).map(move |first| {
            let rows = first..length.min(first + step);
            let start = seen.columns(rows.start, length).start;
            let end = seen.columns(rows.end - 1, length).end;
            Block {
                rows,
                columns: start..end,
            }
        })
    }

    /// A block of `P`, row-major, in `scores`.
    fn probabilities(&self, task: Task, block: &Block, scores: &mut [f32], band: &mut Vec<f32>) {
        let query = self.query.view(task).rows(block.rows.clone());
        let key = self.key.view(self.shared(task)).rows(block.columns.clone());
        let out = ViewMut::new(scores, block.sides());
        let above = self.if_causal(Triangle::Product, block);
        self.product(out, query, key.t(), self.scale, above);
        if let Some(head) = self.relative(task) {
            relative_bands::add_scores(scores, head, band, |out, a, b| {
                self.product(out, a, b, self.scale, Triangle::None);
            });
        }
        softmax_rows(scores, block, task.length, self.seen);
    }

    /// What the scores of relative positions are made of, if there are any.
    fn relative(&self, task: Task) -> Option<HeadViews<'_>> {
        if self.tables.iter().all(Option::is_none) {
            return None;
        }
        let rows = Task {
            start: self.first_distance(task),
            length: 2 * task.length - 1,
            ..task
        };
        Some(HeadViews {
            query: self.query.view(task),
            key: self.key.view(self.shared(task)),
            tables: self.tables.map(|table| table.map(|table| table.view(rows))),
        })
    }

    /// The first of the tables' rows that a sequence reads.
    fn first_distance(&self, task: Task) -> usize {
        self.longest - task.length
    }

    /// The head of key and value that a head of the query attends to.
    pub(super) fn shared(&self, task: Task) -> Task {
        Task {
            head: task.head / self.sharing,
            ..task
        }
    }
}

/// Memory of two blocks of scores, and of some rows' scores of relative positions, which a thread uses for one task after the
/// other.
#[derive(Default)]
struct ScoreBuffers {
    scores: [Vec<f32>; 2],
    band: Vec<f32>,
}

/// What a thread uses for one task of the backward pass after the other: the score matrices, and a head's part of the
/// gradient of a key or a value that several heads share.
#[derive(Default)]
pub(super) struct BackwardBuffers {
    scores: ScoreBuffers,
    part: Vec<f32>,
    bands: BandBuffers,
}

impl ScoreBuffers {
    /// Both as large as the block, with whatever they held last, and the memory for relative positions.
    fn of(&mut self, block: &Block) -> ([&mut [f32]; 2], &mut Vec<f32>) {
        let size = block.rows.len() * block.columns.len();
        let matrices = self.scores.each_mut().map(|scores| {
            if scores.len() < size {
                scores.resize(size, 0.0);
            }
            &mut scores[..size]
        });
        (matrices, &mut self.band)
    }
}

/// Which columns a row of the scores sees.
#[derive(Clone, Copy)]
struct Seen {
    causal: bool,
    window: Option<usize>,
}

impl Seen {
    /// The columns of one of `length` rows.
    #[inline(always)]
    fn columns(self, row: usize, length: usize) -> Range<usize> {
        let end = if self.causal { row + 1 } else { length };
        let start = self.window.map_or(0, |window| end.saturating_sub(window));
        start..end
    }

    /// The same of a block's row, counted from the block's first row and column.
    #[inline(always)]
    fn in_block(self, row: usize, block: &Block, length: usize) -> Range<usize> {
        let columns = self.columns(block.rows.start + row, length);
        columns.start - block.columns.start..columns.end - block.columns.start
    }
}

vectorized! {
    /// The rows of a block of `length` rows of scores become probabilities: zeros where nothing is seen.
    fn softmax_rows(scores: &mut [f32], block: &Block, length: usize, seen: Seen) {
        for (index, row) in scores.chunks_exact_mut(block.columns.len()).enumerate() {
            let columns = seen.in_block(index, block, length);
            let (row, later) = row.split_at_mut(columns.end);
            let (earlier, row) = row.split_at_mut(columns.start);
            let largest = largest(row);
            for x in row.iter_mut() {
                *x = exp(*x - largest);
            }
            let inverse = 1.0 / sum_of(row, row, |x, _| x);
            for x in row.iter_mut() {
                *x *= inverse;
            }
            earlier.fill(0.0);
            later.fill(0.0);
        }
    }
}

vectorized! {
    /// The gradients of probabilities `p` become those of the scores; both a block of `length` rows.
    fn softmax_gradients(d: &mut [f32], p: &[f32], block: &Block, length: usize, seen: Seen) {
        let width = block.columns.len();
        let rows = d.chunks_exact_mut(width).zip(p.chunks_exact(width));
        for (index, (d, p)) in rows.enumerate() {
            let columns = seen.in_block(index, block, length);
            let p = &p[columns.clone()];
            let (d, later) = d.split_at_mut(columns.end);
            let (earlier, seen) = d.split_at_mut(columns.start);
            let along = sum_of(seen, p, |d, p| d * p);
            for (d, p) in seen.iter_mut().zip(p) {
                *d = p * (*d - along);
            }
            earlier.fill(0.0);
            later.fill(0.0);
        }
    }
}

vectorized! {
    /// Multiplies element by element.
    fn times(values: &mut [f32], keep: &[f32]) {
        for (value, keep) in values.iter_mut().zip(keep) {
            *value *= keep;
        }
    }
}

/// Where an output is written, each task's part by the task.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    pub(super) place: &'a Place<'a>,
    /// The output's first column in the tensor that it lies in.
    pub(super) first: usize,
    pub(super) head_dim: usize,
}

impl<'a> Output<'a> {
    /// `[length, head_dim]`.
    ///
    /// # Safety
    /// While the view lives, no other view has this head of these tokens, and no other output has columns of this one.
    pub(super) unsafe fn of(&self, task: Task) -> ViewMut<'a> {
        let first = self.first + task.head * self.head_dim;
        let rows = task.start..task.start + task.length;
        // SAFETY: the caller has no other view of them.
        unsafe { self.place.view(rows, first..first + self.head_dim) }
    }
}

/// The tensor with the elements of each row side by side.
pub(super) fn with_whole_rows(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    if layout.has_positive_strides() && layout.inner_stride() == 1 {
        tensor
    } else {
        contiguous(tensor)
    }
}

/// The inputs in memory that can be sliced.
pub(super) fn prepared(inputs: Inputs<FlexTensor>) -> Inputs<FlexTensor> {
    Inputs {
        query: with_whole_rows(inputs.query),
        key: with_whole_rows(inputs.key),
        value: with_whole_rows(inputs.value),
        keep: inputs.keep.map(contiguous),
        tables: inputs.tables.map(|table| table.map(with_whole_rows)),
    }
}

pub(super) fn packed<'a>(
    inputs: &'a Inputs<FlexTensor>,
    layout: &AttentionLayout,
) -> PackedInputs<'a> {
    let sides = inputs.query.shape();
    let width = sides[1];
    let tokens = layout.offsets.tokens();
    let head_dim = width.checked_div(layout.heads).unwrap_or(0);
    let shared = layout.key_value_heads(width, inputs.key.shape()[1]);
    assert!(
        shared > 0 && layout.heads.is_multiple_of(shared),
        "{shared} heads of key and value for {} of the query",
        layout.heads
    );
    assert!(
        sides[0] == tokens && width == layout.heads * head_dim,
        "{sides:?} for {tokens} tokens and {} heads",
        layout.heads
    );
    for other in [&inputs.key, &inputs.value] {
        let expected = Shape::from([tokens, shared * head_dim]);
        assert_eq!(other.shape(), expected, "the shape of key and value");
    }
    let tables = inputs.tables.each_ref().map(Option::as_ref);
    let table_rows = tables.into_iter().flatten().map(|table| table.shape()[0]);
    let longest = table_rows.min().unwrap_or(0).div_ceil(2);
    for table in tables.into_iter().flatten() {
        let expected = Shape::from([2 * longest - 1, width]);
        assert_eq!(table.shape(), expected, "the shape of relative positions");
        let fits = layout.offsets.lengths().all(|length| length <= longest);
        assert!(fits, "relative positions for {longest} tokens");
    }
    PackedInputs {
        query: Sequences::new(&inputs.query, head_dim),
        key: Sequences::new(&inputs.key, head_dim),
        value: Sequences::new(&inputs.value, head_dim),
        tables: tables.map(|table| table.map(|table| Sequences::new(table, head_dim))),
        longest,
        keep: inputs.keep.as_ref().map(values),
        dropout: layout.dropout,
        width,
        head_dim,
        sharing: layout.heads / shared,
        scale: layout.scale as f32,
        seen: Seen {
            causal: layout.causal,
            window: layout.window.filter(|_| layout.causal),
        },
        saved: layout.saved,
    }
}

/// [`crate::ops::MtLoraBackend::segment_attention`].
pub(crate) fn segment_attention(
    inputs: Inputs<FlexTensor>,
    layout: &AttentionLayout,
) -> FlexTensor {
    let inputs = prepared(inputs);
    let packed = packed(&inputs, layout);
    let tasks = tasks(layout);
    let shape = inputs.query.shape();
    let size = shape.num_elements();
    let mut out = Vec::with_capacity(size);
    let place = Place::new(&mut out.spare_capacity_mut()[..size], packed.width);
    let output = Output {
        place: &place,
        first: 0,
        head_dim: packed.head_dim,
    };
    tasks
        .par_iter()
        .for_each_init(ScoreBuffers::default, |scores, task| {
            // SAFETY: this is the one call for this task.
            let mut out = unsafe { output.of(*task) };
            let value = packed.value.view(packed.shared(*task));
            for block in packed.blocks(*task) {
                let ([p, _], band) = scores.of(&block);
                packed.probabilities(*task, &block, p, band);
                packed.drop(*task, &block, p);
                let p = View::new(p, block.sides(), block.columns.len());
                let above = packed.if_causal(Triangle::AboveLeft, &block);
                let out = out.part(block.rows, 0..packed.head_dim);
                packed.product(out, p, value.rows(block.columns), 1.0, above);
            }
        });
    // SAFETY: the tasks have all heads of all tokens, and each has written its part.
    unsafe { out.set_len(size) };
    tensor(out, shape)
}

/// `factor a b` into `out`, or, with memory for a `part`, added to what is there.
///
/// # Safety
/// With a `part`, all of `out` has been written.
unsafe fn write_or_add(
    packed: &PackedInputs<'_>,
    mut out: ViewMut<'_>,
    part: Option<&mut Vec<f32>>,
    [a, b]: [View<'_>; 2],
    factor: f32,
    triangle: Triangle,
) {
    let Some(part) = part else {
        return packed.product(out, a, b, factor, triangle);
    };
    let sides = out.sides();
    let size = sides[0] * sides[1];
    part.resize(part.len().max(size), 0.0);
    let part = &mut part[..size];
    packed.product(ViewMut::new(part, sides), a, b, factor, triangle);
    // SAFETY: the caller has written all of it.
    unsafe { out.add(part) };
}

/// Writes the gradients of one task's query, key and value; those of key and value are added to what is there if the task
/// `is_further`, not the first, of those that share them. The gradients of its head's rows of the tables, each
/// `[2 * longest - 1, head_dim]`, are added to those in `d_tables`.
///
/// # Safety
/// For a further task, the first of those that share its key and value has been done with the same `dk` and `dv`.
pub(super) unsafe fn backward_task(
    packed: &PackedInputs<'_>,
    dy: Sequences<'_>,
    task: Task,
    is_further: bool,
    BackwardBuffers {
        scores,
        part,
        bands,
    }: &mut BackwardBuffers,
    [mut dq, mut dk, mut dv]: [ViewMut<'_>; 3],
    d_tables: [Option<&mut [f32]>; 2],
) {
    let (length, head_dim) = (task.length, packed.head_dim);
    let (query, key, value) = (
        packed.query.view(task),
        packed.key.view(packed.shared(task)),
        packed.value.view(packed.shared(task)),
    );
    let adds = is_further || !packed.is_whole(task);
    if adds && !is_further {
        dk.whole().fill(0.0);
        dv.whole().fill(0.0);
    }
    let mut part = adds.then_some(part);
    for block in packed.blocks(task) {
        let ([p, d], band) = scores.of(&block);
        packed.probabilities(task, &block, p, band);
        let d_out = dy.view(task).rows(block.rows.clone());
        let kept: &[f32] = if packed.drops() {
            d.copy_from_slice(p);
            packed.drop(task, &block, d);
            d
        } else {
            p
        };
        // The transposes of what has zeros above the diagonal have them below it.
        let below = packed.if_causal(Triangle::BelowLeft, &block);
        let kept = View::new(kept, block.sides(), block.columns.len());
        let factors = [kept.t(), d_out];
        let out = dv.part(block.columns.clone(), 0..head_dim);
        // SAFETY: where there is a part, zeros or the first task's gradients have been written.
        unsafe { write_or_add(packed, out, part.as_deref_mut(), factors, 1.0, below) };
        // From here on dP, then dS.
        let out = ViewMut::new(d, block.sides());
        let seen = value.rows(block.columns.clone());
        let above = packed.if_causal(Triangle::Product, &block);
        packed.product(out, d_out, seen.t(), 1.0, above);
        packed.drop(task, &block, d);
        softmax_gradients(d, p, &block, length, packed.seen);
        let ds = View::new(d, block.sides(), block.columns.len());
        let above = packed.if_causal(Triangle::AboveLeft, &block);
        let out = dq.part(block.rows.clone(), 0..head_dim);
        let seen = key.rows(block.columns.clone());
        packed.product(out, ds, seen, packed.scale, above);
        let factors = [ds.t(), query.rows(block.rows.clone())];
        let out = dk.part(block.columns.clone(), 0..head_dim);
        // SAFETY: as for `dv`.
        unsafe {
            write_or_add(
                packed,
                out,
                part.as_deref_mut(),
                factors,
                packed.scale,
                below,
            )
        };
    }
    let Some(head) = packed.relative(task) else {
        return;
    };
    let first = packed.first_distance(task) * packed.head_dim;
    let end = first + (2 * length - 1) * packed.head_dim;
    let d_tables = d_tables.map(|d_table| d_table.map(|d_table| &mut d_table[first..end]));
    let product = |out: ViewMut<'_>, a: View<'_>, b: View<'_>| {
        packed.product(out, a, b, packed.scale, Triangle::None);
    };
    // With relative positions there is one block, whose dS is still there.
    let whole = Block {
        rows: 0..length,
        columns: 0..length,
    };
    let ([_, d], _) = scores.of(&whole);
    // SAFETY: both have just been written.
    unsafe { relative_bands::add_gradients(d, head, [&mut dq, &mut dk], d_tables, bands, product) };
}

/// Writes the gradients of the queries, of the keys and of the values, which have columns of their own.
fn backward(
    packed: &PackedInputs<'_>,
    dy: &FlexTensor,
    layout: &AttentionLayout,
    outputs: [(&Place<'_>, usize); 3],
) {
    let dy = Sequences::new(dy, packed.head_dim);
    let [queries, keys, values] = outputs.map(|(place, first)| Output {
        place,
        first,
        head_dim: packed.head_dim,
    });
    tasks(layout).par_chunks(packed.sharing).for_each_init(
        BackwardBuffers::default,
        |buffers, sharing| {
            for (index, task) in sharing.iter().enumerate() {
                let shared = packed.shared(*task);
                // SAFETY: no other task has this head of these tokens, and the outputs have columns of their own.
                let dq = unsafe { queries.of(*task) };
                // SAFETY: the tasks that share this head are all here, and have its views one after the other.
                let [dk, dv] = [keys, values].map(|output| unsafe { output.of(shared) });
                let outputs = [dq, dk, dv];
                // SAFETY: the tasks are done in turn, the first of them first.
                unsafe {
                    backward_task(packed, dy, *task, index > 0, buffers, outputs, [None, None]);
                }
            }
        },
    );
}

/// [`crate::ops::MtLoraBackend::segment_attention_backward`].
pub(crate) fn segment_attention_backward(
    inputs: Inputs<FlexTensor>,
    dy: FlexTensor,
    layout: &AttentionLayout,
) -> [FlexTensor; 3] {
    let (inputs, dy) = (prepared(inputs), with_whole_rows(dy));
    let packed = packed(&inputs, layout);
    let (query, key) = (inputs.query.shape(), inputs.key.shape());
    let memory = |shape: &Shape| Vec::with_capacity(shape.num_elements());
    let (mut dq, mut dk, mut dv) = (memory(&query), memory(&key), memory(&key));
    let places = [
        place(&mut dq, &query),
        place(&mut dk, &key),
        place(&mut dv, &key),
    ];
    backward(
        &packed,
        &dy,
        layout,
        places.each_ref().map(|place| (place, 0)),
    );
    [(dq, query), (dk, key.clone()), (dv, key)].map(|(mut gradient, shape)| {
        // SAFETY: the tasks have all heads of all tokens, and each has written its part.
        unsafe { gradient.set_len(shape.num_elements()) };
        tensor(gradient, shape)
    })
}

/// The memory of a gradient with room for this shape.
pub(super) fn place<'a>(memory: &'a mut Vec<f32>, shape: &Shape) -> Place<'a> {
    Place::new(
        &mut memory.spare_capacity_mut()[..shape.num_elements()],
        shape[1],
    )
}

/// [`crate::ops::MtLoraBackend::fused_segment_attention_backward`].
pub(crate) fn fused_segment_attention_backward(
    inputs: Inputs<FlexTensor>,
    dy: FlexTensor,
    layout: &AttentionLayout,
) -> FlexTensor {
    let (inputs, dy) = (prepared(inputs), with_whole_rows(dy));
    let packed = packed(&inputs, layout);
    let [tokens, width] = [inputs.query.shape()[0], packed.width];
    let size = tokens * 3 * width;
    let mut gradient = Vec::with_capacity(size);
    let place = Place::new(&mut gradient.spare_capacity_mut()[..size], 3 * width);
    backward(
        &packed,
        &dy,
        layout,
        [0, 1, 2].map(|part| (&place, part * width)),
    );
    // SAFETY: the tasks have all heads of all tokens, and each has written its parts, side by side.
    unsafe { gradient.set_len(size) };
    tensor(gradient, Shape::from([tokens, 3 * width]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SequenceOffsets;
    use crate::ops::flex::testing::random;

    fn blocks(length: usize, causal: bool, window: Option<usize>) -> Vec<Block> {
        let layout = AttentionLayout {
            offsets: SequenceOffsets::from_lengths(&[length]).unwrap(),
            heads: 1,
            scale: 1.0,
            causal,
            window,
            dropout: None,
            saved: ActivationDtype::F32,
        };
        let query = random([length, 1], 1.0, 0);
        let inputs = Inputs::new(query.clone(), query.clone(), query, None);
        let tasks = tasks(&layout);
        packed(&inputs, &layout).blocks(tasks[0]).collect()
    }

    /// What a thread keeps of the scores grows with the length; with a window, not even that.
    #[test]
    fn long_sequences_are_made_in_blocks() {
        assert_eq!(blocks(WHOLE, true, None).len(), 1);
        for causal in [false, true] {
            let blocks = blocks(5000, causal, None);
            assert!(blocks.iter().all(|block| block.rows.len() <= ROWS));
            let rows: Vec<usize> = blocks.iter().flat_map(|block| block.rows.clone()).collect();
            assert_eq!(rows, Vec::from_iter(0..5000));
        }
        let blocks = blocks(5000, true, Some(300));
        assert!(blocks.iter().all(|block| block.columns.len() < ROWS + 300));
        let seen = |row: usize| (row + 1).saturating_sub(300)..row + 1;
        for block in &blocks {
            for row in block.rows.clone() {
                let seen = seen(row);
                assert!(block.columns.start <= seen.start && seen.end <= block.columns.end);
            }
        }
    }

    #[test]
    fn heads_of_no_width_attend_to_nothing() {
        for saved in [ActivationDtype::F32, ActivationDtype::Bf16] {
            let layout = AttentionLayout {
                offsets: SequenceOffsets::from_lengths(&[2, 1]).unwrap(),
                heads: 2,
                scale: 1.0,
                causal: true,
                window: None,
                dropout: None,
                saved,
            };
            let packed = || random([3, 0], 1.0, 0);
            let inputs = Inputs::new(packed(), packed(), packed(), None);
            let out = segment_attention(inputs.clone(), &layout);
            assert_eq!(out.shape(), Shape::from([3, 0]));
            for gradient in segment_attention_backward(inputs, packed(), &layout) {
                assert_eq!(gradient.shape(), Shape::from([3, 0]));
            }
        }
    }
}
