//! Attention's forward pass: the softmax is taken online, so that no matrix of scores is ever whole.

use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::{self, prelude::*};

use super::tiles::*;

/// `softmax(scale Q Kᵀ) V` of a tile of queries in one head, and the log-sum-exp of each row's scores:
/// `[tokens, heads]`. Without `key` and `value`, `query` has all three side by side.
#[cube(launch, create_dummy_kernel)]
pub(super) fn attention_forward<I: Int, N: Size>(
    query: &[Vector<f32, N>],
    key: ComptimeOption<&[Vector<f32, N>]>,
    value: ComptimeOption<&[Vector<f32, N>]>,
    offsets: &[I],
    output: &mut [Vector<f32, N>],
    log_sum_exp: &mut [f32],
    query_rows: Place,
    key_rows: Place,
    value_rows: Place,
    output_rows: Place,
    batch: Batch,
    #[comptime] form: Form,
    #[define(I)] _integer: ElemType,
) {
    #[comptime]
    let key = match key {
        ComptimeOption::Some(key) => key,
        ComptimeOption::None => query,
    };
    #[comptime]
    let value = match value {
        ComptimeOption::Some(value) => value,
        ComptimeOption::None => query,
    };
    let unit = UNIT_POS as usize;
    let row = unit / SIDE;
    let column = unit % SIDE;
    let first = CUBE_POS_X as usize * TILE;
    let head = CUBE_POS_Y;

    let mut memory = memory::<N>(form);
    find_seen::<I, N>(&mut memory, offsets, &batch, head, false);
    let end = end_of_seen::<N>(&memory, &batch);
    let mut from = first_seen::<N>(&memory);

    let mut scores = Array::<f32>::new(comptime!(BLOCK * BLOCK));
    let mut sums = Array::<Vector<f32, N>>::new(comptime!(form.sums()));
    #[unroll]
    for index in 0..form.sums() {
        sums[index] = Vector::<f32, N>::new(0.0f32);
    }
    let mut largest = Array::<f32>::new(BLOCK);
    // Each unit sums up its own columns.
    let mut totals = Array::<f32>::new(BLOCK);
    #[unroll]
    for i in 0..BLOCK {
        largest[i] = ABSENT;
        totals[i] = 0.0f32;
    }

    let shared_head = head / batch.group;
    let queries = matrix::<N>(query, &query_rows, head, form);
    let keys = matrix::<N>(key, &key_rows, shared_head, form);
    let values = matrix::<N>(value, &value_rows, shared_head, form);
    let own = rows(first, batch.tokens);
    // One chunk stays in shared memory.
    let keeps = comptime!(form.chunks() == 1);
    if keeps {
        keep_left::<N>(&mut memory, &queries, &own, form);
    }

    while from < end {
        let others = rows(from, end);
        multiply::<N>(
            &mut scores,
            &mut memory,
            &queries,
            &own,
            &keys,
            &others,
            keeps,
            form,
        );
        #[unroll]
        for i in 0..BLOCK {
            let this = row + i * SIDE;
            let mut high = ABSENT.runtime();
            #[unroll]
            for j in 0..BLOCK {
                let other = (from + column + j * SIDE) as u32;
                let visible = is_visible::<N>(&memory, this, other);
                let score = select(visible, scores[i * BLOCK + j] * batch.scale, ABSENT);
                scores[i * BLOCK + j] = score;
                high = high.max(score);
            }
            memory.parts[this * PARTS + column] = high;
        }
        sync_cube();
        #[unroll]
        for i in 0..BLOCK {
            let this = row + i * SIDE;
            let mut high = largest[i];
            for part in 0..SIDE {
                high = high.max(memory.parts[this * PARTS + part]);
            }
            let shrink = (largest[i] - high).exp();
            largest[i] = high;
            let mut total = totals[i] * shrink;
            #[unroll]
            for j in 0..BLOCK {
                let score = scores[i * BLOCK + j];
                let probability = select(score == ABSENT, 0.0f32, (score - high).exp());
                total += probability;
                let place = column + j * SIDE;
                let mut weight = probability;
                if batch.drops == 1 {
                    let other = (from + place) as u32;
                    weight = probability * mask_entry::<N>(&memory, &batch, this, other);
                }
                memory.weights[this * PITCH + place] = weight;
            }
            totals[i] = total;
            #[unroll]
            for index in 0..form.sums() / BLOCK {
                sums[index * BLOCK + i] *= Vector::<f32, N>::new(shrink);
            }
        }
        accumulate::<N>(&mut sums, &mut memory, &values, &others, form);
        from += TILE;
    }

    #[unroll]
    for i in 0..BLOCK {
        memory.parts[(row + i * SIDE) * PARTS + column] = totals[i];
    }
    sync_cube();
    let mut factors = Array::<f32>::new(BLOCK);
    #[unroll]
    for i in 0..BLOCK {
        let this = row + i * SIDE;
        let mut total = 0.0f32.runtime();
        for part in 0..SIDE {
            total += memory.parts[this * PARTS + part];
        }
        factors[i] = 1.0f32 / total;
        if column == 0 && first + this < batch.tokens {
            let place = (first + this) * batch.heads as usize + head as usize;
            log_sum_exp[place] = largest[i] + total.ln();
        }
    }
    write::<N>(output, &output_rows, &sums, &factors, &batch, head, form);
}
