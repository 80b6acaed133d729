//! Attention with relative positions: that of `attention.rs`, and the gradients of the tables, which all sequences share.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::attention::{
    BackwardBuffers, Output, PackedInputs, Sequences, Task, backward_task, packed, place, prepared,
    tasks, with_whole_rows,
};
use super::products::view::Place;
use super::tensor;
use crate::ops::AttentionLayout;
use crate::ops::definitions::attention::Inputs;

/// Sequences whose gradients of a head's tables one task adds up. The sums of the tasks are added in a fixed order, so that
/// the number of threads changes nothing.
const SEQUENCES: usize = 8;

/// The heads that share a head of key and value, in some sequences.
struct Unit<'a> {
    tasks: &'a [Task],
    /// The head of key and value.
    shared: usize,
}

fn units<'a>(tasks: &'a [Task], layout: &AttentionLayout, sharing: usize) -> Vec<Unit<'a>> {
    let groups = tasks.chunks(layout.heads * SEQUENCES);
    let units = groups.flat_map(|tasks| {
        let shared = 0..layout.heads / sharing;
        shared.map(move |shared| Unit { tasks, shared })
    });
    units.collect()
}

/// The gradients of the tables that one unit adds up: for each table that is wanted, and each of the heads,
/// `[2 * longest - 1, head_dim]`.
type Sums = [Option<Vec<f32>>; 2];

/// Writes the gradients of a unit's queries, keys and values.
///
/// # Safety
/// No other unit has these heads of these sequences, and the outputs have columns of their own.
unsafe fn backward_unit(
    packed: &PackedInputs<'_>,
    dy: Sequences<'_>,
    unit: &Unit<'_>,
    table_rows: usize,
    wanted: [bool; 2],
    outputs: [Output<'_>; 3],
    buffers: &mut BackwardBuffers,
) -> Sums {
    let size = table_rows * packed.head_dim;
    let mut sums: Sums = wanted.map(|wanted| wanted.then(|| vec![0.0; packed.sharing * size]));
    let own = unit.tasks.iter();
    for task in own.filter(|task| task.head / packed.sharing == unit.shared) {
        let index = task.head % packed.sharing;
        let [queries, keys, values] = outputs;
        // SAFETY: the caller has no other views of them, and the tasks have theirs one after the other.
        let views = unsafe {
            [
                queries.of(*task),
                keys.of(packed.shared(*task)),
                values.of(packed.shared(*task)),
            ]
        };
        let sums = sums.each_mut().map(|sums| {
            let sums = sums.as_mut();
            sums.map(|sums| &mut sums[index * size..(index + 1) * size])
        });
        // SAFETY: of the heads that share a key and a value, the first comes first.
        unsafe { backward_task(packed, dy, *task, index > 0, buffers, views, sums) };
    }
    sums
}

/// The whole table's gradient, `[rows, heads * head_dim]`, from the units' sums: unit after unit, in their order.
fn added_up(
    sums: &[Option<Vec<f32>>],
    packed: &PackedInputs<'_>,
    [rows, width]: [usize; 2],
) -> FlexTensor {
    let unit_width = packed.sharing * packed.head_dim;
    let units = width.checked_div(unit_width).unwrap_or(0);
    let mut table = vec![0.0; rows * width];
    let by_row = table.par_chunks_mut(width.max(1)).enumerate();
    by_row.for_each(|(row, table)| {
        for (unit, sums) in sums.iter().enumerate() {
            let Some(sums) = sums else { continue };
            let columns = unit % units * unit_width;
            let heads = table[columns..columns + unit_width].chunks_mut(packed.head_dim);
            for (head, table) in heads.enumerate() {
                let sums = &sums[(head * rows + row) * packed.head_dim..];
                for (value, sum) in table.iter_mut().zip(sums) {
                    *value += sum;
                }
            }
        }
    });
    tensor(table, Shape::from([rows, width]))
}

/// [`crate::ops::MtLoraBackend::relative_segment_attention_backward`].
pub(crate) fn relative_segment_attention_backward(
    inputs: Inputs<FlexTensor>,
    dy: FlexTensor,
    layout: &AttentionLayout,
    wanted: [bool; 2],
) -> ([FlexTensor; 3], [Option<FlexTensor>; 2]) {
    let (inputs, dy) = (prepared(inputs), with_whole_rows(dy));
    let packed = packed(&inputs, layout);
    let (query, key) = (inputs.query.shape(), inputs.key.shape());
    let tables = inputs.tables.each_ref().map(Option::as_ref);
    let table_rows = tables.into_iter().flatten().map(|table| table.shape()[0]);
    let table_rows = table_rows.max().unwrap_or(0);
    let wanted = [0, 1].map(|table| wanted[table] && tables[table].is_some());

    let memory = |shape: &Shape| Vec::with_capacity(shape.num_elements());
    let (mut dq, mut dk, mut dv) = (memory(&query), memory(&key), memory(&key));
    let places = [
        place(&mut dq, &query),
        place(&mut dk, &key),
        place(&mut dv, &key),
    ];
    let outputs = places.each_ref().map(|place: &Place<'_>| Output {
        place,
        first: 0,
        head_dim: packed.head_dim,
    });
    let dy = Sequences::new(&dy, packed.head_dim);
    let tasks = tasks(layout);
    let units = units(&tasks, layout, packed.sharing);
    let sums: Vec<Sums> = units
        .par_iter()
        .map_init(BackwardBuffers::default, |buffers, unit| {
            // SAFETY: no two units have the same heads of the same sequences, and each output has memory of its own.
            unsafe { backward_unit(&packed, dy, unit, table_rows, wanted, outputs, buffers) }
        })
        .collect();
    let (d_keys, d_queries): (Vec<_>, Vec<_>) = sums
        .into_iter()
        .map(|[keys, queries]| (keys, queries))
        .unzip();
    let sides = [table_rows, query[1]];
    let d_tables = [(d_keys, wanted[0]), (d_queries, wanted[1])]
        .map(|(sums, wanted)| wanted.then(|| added_up(&sums, &packed, sides)));
    let gradients = [(dq, query), (dk, key.clone()), (dv, key)].map(|(mut gradient, shape)| {
        // SAFETY: the units have all heads of all tokens, and each has written its part.
        unsafe { gradient.set_len(shape.num_elements()) };
        tensor(gradient, shape)
    });
    (gradients, d_tables)
}
