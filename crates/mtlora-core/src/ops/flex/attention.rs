//! Attention of one head of one sequence at a time, read from and written to the strip where it
//! lies. No score matrix outlives its task; the backward pass makes the probabilities anew.

use std::borrow::Cow;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::dropout::drop_elements;
use super::matmul::{View, matmul};
use super::reduce::{largest, sum_of};
use super::vecmath::exp;
use super::{contiguous, made, tensor, values};
use crate::ops::SeededDropout;
use crate::ops::attention::{AttentionLayout, Inputs};

/// One head of one sequence.
#[derive(Clone, Copy)]
struct Task {
    /// The sequence's first token.
    start: usize,
    /// Its tokens.
    length: usize,
    head: usize,
    /// Where its entries of the dropout's mask begin.
    entry: usize,
}

fn tasks(layout: &AttentionLayout) -> Vec<Task> {
    let (mut tasks, mut entry) = (Vec::new(), 0);
    let lengths = layout.segments.lengths();
    for (start, length) in layout.segments.starts().iter().zip(lengths) {
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

/// A strip: `[tokens, heads * head_dim]`.
#[derive(Clone, Copy)]
struct Strip<'a> {
    values: &'a [f32],
    /// From a row to the next: more than its width where others lie beside it.
    stride: usize,
    head_dim: usize,
}

impl<'a> Strip<'a> {
    fn new(tensor: &'a FlexTensor, head_dim: usize) -> Self {
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

/// What the tasks read.
struct Strips<'a> {
    query: Strip<'a>,
    key: Strip<'a>,
    value: Strip<'a>,
    keep: Option<&'a [f32]>,
    dropout: Option<SeededDropout>,
    /// Of a row.
    width: usize,
    head_dim: usize,
    scale: f32,
    causal: bool,
}

impl Strips<'_> {
    /// What the probabilities are multiplied with.
    fn kept(&self, task: Task) -> Option<Cow<'_, [f32]>> {
        let entries = task.length * task.length;
        let keep = self
            .keep
            .map(|keep| &keep[task.entry..task.entry + entries]);
        let Some(dropout) = self.dropout else {
            return keep.map(Cow::Borrowed);
        };
        let mut mask = keep.map_or_else(|| vec![1.0; entries], <[f32]>::to_vec);
        drop_elements(&mut mask, task.entry, dropout);
        Some(Cow::Owned(mask))
    }

    /// `P`, row-major, in `scores`.
    fn probabilities(&self, task: Task, scores: &mut [f32]) {
        let length = task.length;
        let (query, key) = (self.query.view(task), self.key.view(task));
        matmul(scores, query, key.t(), self.scale);
        pulp::Arch::new().dispatch(|| {
            for (index, row) in scores.chunks_exact_mut(length).enumerate() {
                let seen = if self.causal { index + 1 } else { length };
                let (seen, later) = row.split_at_mut(seen);
                softmax(seen);
                later.fill(0.0);
            }
        });
    }
}

/// Memory of two score matrices, which a thread uses for one task after the other.
#[derive(Default)]
struct Scores([Vec<f32>; 2]);

impl Scores {
    /// Both of `[length, length]`, with whatever they held last.
    fn of(&mut self, length: usize) -> [&mut [f32]; 2] {
        let size = length * length;
        self.0.each_mut().map(|scores| {
            if scores.len() < size {
                scores.resize(size, 0.0);
            }
            &mut scores[..size]
        })
    }
}

#[inline(always)]
fn softmax(row: &mut [f32]) {
    let largest = largest(row);
    for x in row.iter_mut() {
        *x = exp(*x - largest);
    }
    let inverse = 1.0 / sum_of(row, row, |x, _| x);
    for x in row.iter_mut() {
        *x *= inverse;
    }
}

fn times(values: &mut [f32], keep: Option<&[f32]>) {
    if let Some(keep) = keep {
        for (value, keep) in values.iter_mut().zip(keep) {
            *value *= keep;
        }
    }
}

/// Rows of a strip that a thread puts together at a time.
const ROWS: usize = 32;

/// Strips side by side, of which each gets the parts, `[length, head_dim]`, of all tasks in their places.
fn placed<const STRIPS: usize>(
    parts: [&[Vec<f32>]; STRIPS],
    tasks: &[Task],
    read: &Strips<'_>,
) -> Vec<f32> {
    let heads = read.width / read.head_dim.max(1);
    // Of each token, its sequence's first task and its place in the sequence.
    let tokens: Vec<(usize, usize)> = tasks
        .iter()
        .step_by(heads.max(1))
        .enumerate()
        .flat_map(|(sequence, task)| (0..task.length).map(move |row| (sequence * heads, row)))
        .collect();
    let stride = read.width * STRIPS;
    made(tokens.len() * stride, ROWS * stride, |chunk, rows| {
        let tokens = &tokens[chunk * ROWS..];
        for (strips, (task, row)) in rows.chunks_exact_mut(stride.max(1)).zip(tokens) {
            for (strip, parts) in strips.chunks_exact_mut(read.width).zip(parts) {
                let heads = strip.chunks_exact_mut(read.head_dim).zip(&parts[*task..]);
                for (head, part) in heads {
                    head.copy_from_slice(&part[row * read.head_dim..][..read.head_dim]);
                }
            }
        }
    })
}

/// The tensor with the elements of each row side by side.
fn with_whole_rows(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    match layout.has_positive_strides() && layout.inner_stride() == 1 {
        true => tensor,
        false => contiguous(tensor),
    }
}

/// The inputs in memory that can be sliced.
fn prepared(inputs: Inputs<FlexTensor>) -> Inputs<FlexTensor> {
    Inputs {
        query: with_whole_rows(inputs.query),
        key: with_whole_rows(inputs.key),
        value: with_whole_rows(inputs.value),
        keep: inputs.keep.map(contiguous),
    }
}

fn strips<'a>(inputs: &'a Inputs<FlexTensor>, layout: &AttentionLayout) -> Strips<'a> {
    let sides = inputs.query.shape();
    let width = sides[1];
    let tokens = layout.segments.tokens();
    assert!(
        sides[0] == tokens && width.is_multiple_of(layout.heads.max(1)),
        "{sides:?} for {tokens} tokens and {} heads",
        layout.heads
    );
    for other in [&inputs.key, &inputs.value] {
        assert_eq!(other.shape(), sides, "the shape of query, key and value");
    }
    let head_dim = width / layout.heads.max(1);
    Strips {
        query: Strip::new(&inputs.query, head_dim),
        key: Strip::new(&inputs.key, head_dim),
        value: Strip::new(&inputs.value, head_dim),
        keep: inputs.keep.as_ref().map(values),
        dropout: layout.dropout,
        width,
        head_dim,
        scale: layout.scale as f32,
        causal: layout.causal,
    }
}

/// [`crate::ops::MtLoraBackend::segment_attention`].
pub(crate) fn segment_attention(
    inputs: Inputs<FlexTensor>,
    layout: &AttentionLayout,
) -> FlexTensor {
    let inputs = prepared(inputs);
    let strips = strips(&inputs, layout);
    let tasks = tasks(layout);
    let parts: Vec<Vec<f32>> = tasks
        .par_iter()
        .map_init(Scores::default, |scores, task| {
            let [p, _] = scores.of(task.length);
            strips.probabilities(*task, p);
            times(p, strips.kept(*task).as_deref());
            let mut out = vec![0.0; task.length * strips.head_dim];
            let p = View::new(p, [task.length; 2], task.length);
            matmul(&mut out, p, strips.value.view(*task), 1.0);
            out
        })
        .collect();
    let shape = inputs.query.shape();
    tensor(placed([&parts], &tasks, &strips), shape)
}

/// The gradients of one task's query, key and value.
fn backward_task(
    strips: &Strips<'_>,
    dy: Strip<'_>,
    task: Task,
    scores: &mut Scores,
) -> [Vec<f32>; 3] {
    let (length, size) = (task.length, task.length * strips.head_dim);
    let [p, d] = scores.of(length);
    strips.probabilities(task, p);
    let keep = strips.kept(task);
    let keep = keep.as_deref();
    let d_out = dy.view(task);
    let kept: &[f32] = match keep {
        Some(_) => {
            d.copy_from_slice(p);
            times(d, keep);
            d
        }
        None => p,
    };
    let mut dv = vec![0.0; size];
    let kept = View::new(kept, [length; 2], length);
    matmul(&mut dv, kept.t(), d_out, 1.0);
    // From here on dP, then dS.
    matmul(d, d_out, strips.value.view(task).t(), 1.0);
    times(d, keep);
    pulp::Arch::new().dispatch(|| {
        let rows = d.chunks_exact_mut(length).zip(p.chunks_exact(length));
        for (d, p) in rows {
            let along = sum_of(d, p, |d, p| d * p);
            for (d, p) in d.iter_mut().zip(p) {
                *d = p * (*d - along);
            }
        }
    });
    let ds = View::new(d, [length; 2], length);
    let (mut dq, mut dk) = (vec![0.0; size], vec![0.0; size]);
    matmul(&mut dq, ds, strips.key.view(task), strips.scale);
    matmul(&mut dk, ds.t(), strips.query.view(task), strips.scale);
    [dq, dk, dv]
}

/// The gradients of all tasks' queries, of their keys and of their values.
fn backward_tasks(strips: &Strips<'_>, dy: &FlexTensor, tasks: &[Task]) -> [Vec<Vec<f32>>; 3] {
    let dy = Strip::new(dy, strips.head_dim);
    let all: Vec<[Vec<f32>; 3]> = tasks
        .par_iter()
        .map_init(Scores::default, |scores, task| {
            backward_task(strips, dy, *task, scores)
        })
        .collect();
    let mut columns: [Vec<Vec<f32>>; 3] = Default::default();
    for parts in all {
        for (column, part) in columns.iter_mut().zip(parts) {
            column.push(part);
        }
    }
    columns
}

/// [`crate::ops::MtLoraBackend::segment_attention_backward`].
pub(crate) fn segment_attention_backward(
    inputs: Inputs<FlexTensor>,
    dy: FlexTensor,
    layout: &AttentionLayout,
) -> [FlexTensor; 3] {
    let (inputs, dy) = (prepared(inputs), with_whole_rows(dy));
    let (strips, tasks) = (strips(&inputs, layout), tasks(layout));
    let shape = inputs.query.shape();
    backward_tasks(&strips, &dy, &tasks)
        .map(|parts| tensor(placed([&parts], &tasks, &strips), shape.clone()))
}

/// [`crate::ops::MtLoraBackend::fused_segment_attention_backward`].
pub(crate) fn fused_segment_attention_backward(
    inputs: Inputs<FlexTensor>,
    dy: FlexTensor,
    layout: &AttentionLayout,
) -> FlexTensor {
    let (inputs, dy) = (prepared(inputs), with_whole_rows(dy));
    let (strips, tasks) = (strips(&inputs, layout), tasks(layout));
    let [tokens, width] = [inputs.query.shape()[0], 3 * strips.width];
    let [dq, dk, dv] = backward_tasks(&strips, &dy, &tasks);
    let fused = placed([&dq, &dk, &dv], &tasks, &strips);
    tensor(fused, Shape::from([tokens, width]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Segments;
    use crate::ops::attention as definition;
    use crate::ops::flex::testing::{close, random};
    use crate::ops::{MtLoraBackend, Optional, Saved};
    use burn::backend::Flex;
    use burn::backend::ops::FloatTensorOps;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            lengths in prop::collection::vec(1usize..40, 1..5),
            heads in 1usize..4, head_dim in 1usize..20, causal: bool, dropout: bool, seeded: bool,
            seed: u64,
        ) {
            let segments = Segments::from_lengths(&lengths).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let shape = [segments.tokens(), heads * head_dim];
            let strip = |offset: u64| random(shape, 2.0, seed ^ offset);
            let entries = heads * segments.score_entries();
            let inputs = Inputs {
                query: strip(1),
                key: strip(2),
                value: strip(3),
                keep: dropout.then(|| random([entries], 1.0, seed ^ 4)),
            };
            let dropout = seeded.then_some(SeededDropout { prob: 0.2, seed });
            let layout = AttentionLayout {
                segments, heads, scale: 0.3, causal, dropout, saved: Saved::Exact,
            };
            let found = segment_attention(inputs.clone(), &layout);
            close(&found, &definition::forward::<Flex>(inputs.clone(), &layout))?;
            let dy = strip(5);
            let found = segment_attention_backward(inputs.clone(), dy.clone(), &layout);
            let expected = definition::backward::<Flex>(&inputs, dy, &layout);
            for (found, expected) in found.iter().zip(&expected) {
                close(found, expected)?;
            }

            // The same, side by side.
            let fused = Flex::float_cat(
                vec![inputs.query.clone(), inputs.key.clone(), inputs.value.clone()],
                1,
            );
            let keep = || Optional::from(inputs.keep.clone());
            let found = Flex::fused_segment_attention(fused.clone(), keep(), layout.clone());
            close(&found, &definition::forward::<Flex>(inputs.clone(), &layout))?;
            let found = Flex::fused_segment_attention_backward(fused, keep(), strip(5), layout);
            close(&found, &Flex::float_cat(expected.to_vec(), 1))?;
        }
    }
}
