//! Attention of one head of one sequence at a time, read from and written to the strip where it
//! lies. No score matrix outlives its task; the backward pass makes the probabilities anew.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::matmul::{View, matmul};
use super::reduce::{largest, sum_of};
use super::vecmath::exp;
use super::{contiguous, tensor, values};
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

/// The strips that the tasks read.
struct Strips<'a> {
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    keep: Option<&'a [f32]>,
    /// Of a row.
    width: usize,
    head_dim: usize,
    scale: f32,
    causal: bool,
}

impl<'a> Strips<'a> {
    /// A head of a sequence: `[length, head_dim]`.
    fn view<'b>(&self, strip: &'b [f32], task: Task) -> View<'b> {
        let from = task.start * self.width + task.head * self.head_dim;
        View::new(&strip[from..], [task.length, self.head_dim], self.width)
    }

    fn kept(&self, task: Task) -> Option<&'a [f32]> {
        let entries = task.length * task.length;
        self.keep
            .map(|keep| &keep[task.entry..task.entry + entries])
    }

    /// `P`, row-major.
    fn probabilities(&self, task: Task) -> Vec<f32> {
        let length = task.length;
        let mut scores = vec![0.0; length * length];
        let (query, key) = (self.view(self.query, task), self.view(self.key, task));
        matmul(&mut scores, query, key.t(), self.scale);
        pulp::Arch::new().dispatch(|| {
            for (index, row) in scores.chunks_exact_mut(length).enumerate() {
                let seen = if self.causal { index + 1 } else { length };
                let (seen, later) = row.split_at_mut(seen);
                softmax(seen);
                later.fill(0.0);
            }
        });
        scores
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

/// The parts of all tasks, each `[length, head_dim]`, as a strip.
fn assemble(
    tasks: &[Task],
    parts: &[Vec<f32>],
    width: usize,
    head_dim: usize,
    tokens: usize,
) -> Vec<f32> {
    let mut strip = vec![0.0; tokens * width];
    for (task, part) in tasks.iter().zip(parts) {
        let from = task.start * width + task.head * head_dim;
        for (row, values) in part.chunks_exact(head_dim.max(1)).enumerate() {
            strip[from + row * width..][..head_dim].copy_from_slice(values);
        }
    }
    strip
}

/// The inputs in memory that can be sliced.
fn prepared(inputs: Inputs<FlexTensor>) -> Inputs<FlexTensor> {
    Inputs {
        query: contiguous(inputs.query),
        key: contiguous(inputs.key),
        value: contiguous(inputs.value),
        keep: inputs.keep.map(contiguous),
    }
}

fn strips<'a>(inputs: &'a Inputs<FlexTensor>, layout: &AttentionLayout) -> Strips<'a> {
    let width = inputs.query.shape()[1];
    Strips {
        query: values(&inputs.query),
        key: values(&inputs.key),
        value: values(&inputs.value),
        keep: inputs.keep.as_ref().map(values),
        width,
        head_dim: width / layout.heads.max(1),
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
        .map(|task| {
            let mut p = strips.probabilities(*task);
            times(&mut p, strips.kept(*task));
            let mut out = vec![0.0; task.length * strips.head_dim];
            let p = View::new(&p, [task.length; 2], task.length);
            matmul(&mut out, p, strips.view(strips.value, *task), 1.0);
            out
        })
        .collect();
    let shape = inputs.query.shape();
    let strip = assemble(&tasks, &parts, strips.width, strips.head_dim, shape[0]);
    tensor(strip, shape)
}

/// The gradients of one task's query, key and value.
fn backward_task(strips: &Strips<'_>, dy: &[f32], task: Task) -> [Vec<f32>; 3] {
    let (length, size) = (task.length, task.length * strips.head_dim);
    let p = strips.probabilities(task);
    let keep = strips.kept(task);
    let d_out = strips.view(dy, task);
    let mut kept = p.clone();
    times(&mut kept, keep);
    let mut dv = vec![0.0; size];
    matmul(
        &mut dv,
        View::new(&kept, [length; 2], length).t(),
        d_out,
        1.0,
    );
    // From here on dP, then dS.
    let mut d = kept;
    matmul(&mut d, d_out, strips.view(strips.value, task).t(), 1.0);
    times(&mut d, keep);
    pulp::Arch::new().dispatch(|| {
        let rows = d.chunks_exact_mut(length).zip(p.chunks_exact(length));
        for (d, p) in rows {
            let along = sum_of(d, p, |d, p| d * p);
            for (d, p) in d.iter_mut().zip(p) {
                *d = p * (*d - along);
            }
        }
    });
    let ds = View::new(&d, [length; 2], length);
    let (mut dq, mut dk) = (vec![0.0; size], vec![0.0; size]);
    matmul(&mut dq, ds, strips.view(strips.key, task), strips.scale);
    matmul(
        &mut dk,
        ds.t(),
        strips.view(strips.query, task),
        strips.scale,
    );
    [dq, dk, dv]
}

/// [`crate::ops::MtLoraBackend::segment_attention_backward`].
pub(crate) fn segment_attention_backward(
    inputs: Inputs<FlexTensor>,
    dy: FlexTensor,
    layout: &AttentionLayout,
) -> [FlexTensor; 3] {
    let (inputs, dy) = (prepared(inputs), contiguous(dy));
    let strips = strips(&inputs, layout);
    let tasks = tasks(layout);
    let all: Vec<[Vec<f32>; 3]> = tasks
        .par_iter()
        .map(|task| backward_task(&strips, values(&dy), *task))
        .collect();
    let shape = inputs.query.shape();
    let mut columns: [Vec<Vec<f32>>; 3] = Default::default();
    for parts in all {
        for (column, part) in columns.iter_mut().zip(parts) {
            column.push(part);
        }
    }
    columns.map(|parts| {
        let strip = assemble(&tasks, &parts, strips.width, strips.head_dim, shape[0]);
        tensor(strip, shape.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Segments;
    use crate::ops::attention as definition;
    use crate::ops::flex::testing::{close, random};
    use burn::backend::Flex;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            lengths in prop::collection::vec(1usize..40, 1..5),
            heads in 1usize..4, head_dim in 1usize..20, causal: bool, dropout: bool, seed: u64,
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
            let layout = AttentionLayout { segments, heads, scale: 0.3, causal };
            let found = segment_attention(inputs.clone(), &layout);
            close(&found, &definition::forward::<Flex>(inputs.clone(), &layout))?;
            let dy = strip(5);
            let found = segment_attention_backward(inputs.clone(), dy.clone(), &layout);
            let expected = definition::backward::<Flex>(&inputs, dy, &layout);
            for (found, expected) in found.iter().zip(&expected) {
                close(found, expected)?;
            }
        }
    }
}
