//! Attention by rows: a unit computes one row of one head, without shared memory and barriers. For drivers that compute on the processor,
//! where short sequences then cost no more than the pairs of tokens that see each other. Each pair reads its rows again, so
//! that long sequences are better served by [tiles](super::tiles).

use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::{self, prelude::*};

use super::tiles::{
    ABSENT, Batch, Place, Seen, row_sees, score_factor, sequence_of, squared_length,
};

/// The most vectors of a head: a unit keeps a few rows of it in registers.
pub(super) const MOST_VECTORS: usize = 32;

/// What a row sees, found by its unit alone.
#[cube]
fn seen<I: Int>(
    offsets: &[I],
    batch: &Batch,
    row: usize,
    head: u32,
    #[comptime] owns_keys: bool,
) -> Seen {
    let sequence = sequence_of::<I>(offsets, batch.sequences, row);
    let mut entries = 0u32.runtime();
    if batch.drops == 1 {
        for earlier in 0..sequence {
            entries += squared_length::<I>(offsets, earlier);
        }
    }
    row_sees::<I>(offsets, batch, row, sequence, head, entries, owns_keys)
}

/// A row of one head in a buffer.
#[cube]
fn place_of(rows: &Place, row: usize, head: u32, #[comptime] vectors: usize) -> usize {
    rows.start + row * rows.stride + head as usize * vectors
}

/// A row's vectors, in registers.
#[cube]
fn read<N: Size>(
    values: &[Vector<f32, N>],
    place: usize,
    #[comptime] vectors: usize,
) -> Array<Vector<f32, N>> {
    let mut row = Array::<Vector<f32, N>>::new(vectors);
    #[unroll]
    for vector in 0..vectors {
        row[vector] = values[place + vector];
    }
    row
}

#[cube]
fn zeros<N: Size>(#[comptime] vectors: usize) -> Array<Vector<f32, N>> {
    let mut row = Array::<Vector<f32, N>>::new(vectors);
    #[unroll]
    for vector in 0..vectors {
        row[vector] = Vector::<f32, N>::new(0.0f32);
    }
    row
}

#[cube]
fn dot<N: Size>(
    a: &Array<Vector<f32, N>>,
    b: &[Vector<f32, N>],
    place: usize,
    #[comptime] vectors: usize,
) -> f32 {
    let mut sum = 0.0f32.runtime();
    #[unroll]
    for vector in 0..vectors {
        sum += a[vector].dot(b[place + vector]);
    }
    sum
}

/// `sums * shrink + factor * row`.
#[cube]
fn add<N: Size>(
    sums: &mut Array<Vector<f32, N>>,
    shrink: f32,
    factor: f32,
    b: &[Vector<f32, N>],
    place: usize,
    #[comptime] vectors: usize,
) {
    let shrink = Vector::<f32, N>::new(shrink);
    let factor = Vector::<f32, N>::new(factor);
    #[unroll]
    for vector in 0..vectors {
        sums[vector] = sums[vector] * shrink + b[place + vector] * factor;
    }
}

#[cube]
fn write<N: Size>(
    values: &mut [Vector<f32, N>],
    place: usize,
    row: &Array<Vector<f32, N>>,
    factor: f32,
    #[comptime] vectors: usize,
) {
    let factor = Vector::<f32, N>::new(factor);
    #[unroll]
    for vector in 0..vectors {
        values[place + vector] = row[vector] * factor;
    }
}

/// As [`super::forward::attention_forward`].
#[cube(launch, create_dummy_kernel)]
pub(super) fn attention_forward_by_row<I: Int, N: Size>(
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
    #[comptime] vectors: usize,
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
    let unit = ABSOLUTE_POS;
    if unit < batch.tokens * batch.heads as usize {
        let row = unit % batch.tokens;
        let head = (unit / batch.tokens) as u32;
        let shared_head = head / batch.group;
        let seen = seen::<I>(offsets, &batch, row, head, false);
        let own = read::<N>(query, place_of(&query_rows, row, head, vectors), vectors);
        let mut sums = zeros::<N>(vectors);
        let mut largest = ABSENT.runtime();
        let mut total = 0.0f32.runtime();
        let mut other = seen.first;
        while other < seen.end {
            let keys = place_of(&key_rows, other as usize, shared_head, vectors);
            let values = place_of(&value_rows, other as usize, shared_head, vectors);
            let score = dot::<N>(&own, key, keys, vectors) * batch.scale;
            let high = largest.max(score);
            let shrink = (largest - high).exp();
            let probability = (score - high).exp();
            largest = high;
            total = total * shrink + probability;
            let mut weight = probability;
            if batch.drops == 1 {
                weight = probability * batch.mask.entry(seen.mask + seen.step * other);
            }
            add::<N>(&mut sums, shrink, weight, value, values, vectors);
            other += 1;
        }
        let place = place_of(&output_rows, row, head, vectors);
        write::<N>(output, place, &sums, 1.0f32 / total, vectors);
        log_sum_exp[row * batch.heads as usize + head as usize] = largest + total.ln();
    }
}

/// As [`super::backward::attention_gradients`]. Units below the number of the query's rows and heads own a query, the others a key
/// and its value.
#[cube(launch, create_dummy_kernel)]
pub(super) fn attention_gradients_by_row<I: Int, N: Size>(
    query: &[Vector<f32, N>],
    key: ComptimeOption<&[Vector<f32, N>]>,
    value: ComptimeOption<&[Vector<f32, N>]>,
    dy: &[Vector<f32, N>],
    statistics: &[f32],
    offsets: &[I],
    gradients: &mut [Vector<f32, N>],
    query_rows: Place,
    key_rows: Place,
    value_rows: Place,
    dy_rows: Place,
    query_gradient_rows: Place,
    key_gradient_rows: Place,
    value_gradient_rows: Place,
    batch: Batch,
    #[comptime] vectors: usize,
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
    let heads = batch.heads as usize;
    let queries = batch.tokens * heads;
    let unit = ABSOLUTE_POS;
    if unit < queries {
        let row = unit % batch.tokens;
        let head = (unit / batch.tokens) as u32;
        let shared_head = head / batch.group;
        let seen = seen::<I>(offsets, &batch, row, head, false);
        let own = read::<N>(query, place_of(&query_rows, row, head, vectors), vectors);
        let own_dy = read::<N>(dy, place_of(&dy_rows, row, head, vectors), vectors);
        let at = (row * heads + head as usize) * 2;
        let log_sum = statistics[at];
        let along = statistics[at + 1];
        let mut sums = zeros::<N>(vectors);
        let mut other = seen.first;
        while other < seen.end {
            let keys = place_of(&key_rows, other as usize, shared_head, vectors);
            let values = place_of(&value_rows, other as usize, shared_head, vectors);
            let score = dot::<N>(&own, key, keys, vectors) * batch.scale;
            let mut change = dot::<N>(&own_dy, value, values, vectors);
            if batch.drops == 1 {
                change *= batch.mask.entry(seen.mask + seen.step * other);
            }
            let weight = (score - log_sum).exp() * (change - along);
            add::<N>(&mut sums, 1.0f32, weight, key, keys, vectors);
            other += 1;
        }
        let place = place_of(&query_gradient_rows, row, head, vectors);
        write::<N>(
            gradients,
            place,
            &sums,
            score_factor(seen.most, &batch),
            vectors,
        );
    } else if unit < queries + batch.tokens * (heads / batch.group as usize) {
        let row = (unit - queries) % batch.tokens;
        let shared_head = ((unit - queries) / batch.tokens) as u32;
        let own_key = read::<N>(key, place_of(&key_rows, row, shared_head, vectors), vectors);
        let place = place_of(&value_rows, row, shared_head, vectors);
        let own_value = read::<N>(value, place, vectors);
        let mut key_sums = zeros::<N>(vectors);
        let mut value_sums = zeros::<N>(vectors);
        let mut factor = batch.scale;
        for member in 0..batch.group {
            let head = shared_head * batch.group + member;
            let seen = seen::<I>(offsets, &batch, row, head, true);
            factor = score_factor(seen.most, &batch);
            let mut other = seen.first;
            while other < seen.end {
                let queries = place_of(&query_rows, other as usize, head, vectors);
                let theirs = place_of(&dy_rows, other as usize, head, vectors);
                let at = (other as usize * heads + head as usize) * 2;
                let score = dot::<N>(&own_key, query, queries, vectors) * batch.scale;
                let probability = (score - statistics[at]).exp();
                let mut weight = probability;
                let mut change = dot::<N>(&own_value, dy, theirs, vectors);
                if batch.drops == 1 {
                    let mask = batch.mask.entry(seen.mask + seen.step * other);
                    weight = probability * mask;
                    change *= mask;
                }
                add::<N>(&mut value_sums, 1.0f32, weight, dy, theirs, vectors);
                let change = probability * (change - statistics[at + 1]);
                add::<N>(&mut key_sums, 1.0f32, change, query, queries, vectors);
                other += 1;
            }
        }
        let place = place_of(&key_gradient_rows, row, shared_head, vectors);
        write::<N>(gradients, place, &key_sums, factor, vectors);
        let place = place_of(&value_gradient_rows, row, shared_head, vectors);
        write::<N>(gradients, place, &value_sums, 1.0f32, vectors);
    }
}
