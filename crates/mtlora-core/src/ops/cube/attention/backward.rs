//! Attention's backward pass in two kernels. The probabilities are computed again from the log-sum-exp of their row. Each sum has
//! one owner, so that there are no atomics and a run gives the same bits each time.

use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::{self, prelude::*};

use super::tiles::*;

/// What the other kernel reads of each row in each head, side by side: `[tokens, heads, 2]`. The log-sum-exp, and
/// `rowsum(dO * O)`, which is `rowsum(P * dP)`.
#[cube(launch, create_dummy_kernel)]
pub(super) fn attention_row_sums<N: Size>(
    output: &[Vector<f32, N>],
    dy: &[Vector<f32, N>],
    log_sum_exp: &[f32],
    statistics: &mut [f32],
    output_rows: Place,
    dy_rows: Place,
    tokens: usize,
    heads: usize,
    #[comptime] vectors: usize,
) {
    let place = ABSOLUTE_POS;
    if place < tokens * heads {
        let token = place / heads;
        let head = place % heads;
        let ours = output_rows.start + token * output_rows.stride + head * vectors;
        let theirs = dy_rows.start + token * dy_rows.stride + head * vectors;
        let mut sum = 0.0f32.runtime();
        for vector in 0..vectors {
            sum += output[ours + vector].dot(dy[theirs + vector]);
        }
        statistics[place * 2] = log_sum_exp[place];
        statistics[place * 2 + 1] = sum;
    }
}

/// What the gradients are computed from, in one of the query's heads.
#[derive(CubeType)]
struct Inputs<'a, N: Size> {
    queries: Matrix<'a, N>,
    keys: Matrix<'a, N>,
    values: Matrix<'a, N>,
    dy: Matrix<'a, N>,
    /// The query's head.
    head: u32,
    /// As [`attention_row_sums`] writes them.
    statistics: &'a [f32],
}

#[cube]
fn inputs<'a, N: Size>(
    queries: Matrix<'a, N>,
    keys: Matrix<'a, N>,
    values: Matrix<'a, N>,
    dy: Matrix<'a, N>,
    head: u32,
    statistics: &'a [f32],
) -> Inputs<'a, N> {
    Inputs::<'a, N> {
        queries,
        keys,
        values,
        dy,
        head,
        statistics,
    }
}

/// Where a row's numbers are among the statistics.
#[cube]
fn statistics_of(row: usize, head: u32, batch: &Batch) -> usize {
    (row * batch.heads as usize + head as usize) * 2
}

/// The gradient of a tile of queries in one head, `scale dS K`.
#[cube]
fn query_gradient<N: Size>(
    inputs: &Inputs<'_, N>,
    memory: &mut Memory<N>,
    gradients: &mut [Vector<f32, N>],
    gradient_rows: &Place,
    batch: &Batch,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let row = unit / SIDE;
    let column = unit % SIDE;
    let first = CUBE_POS_X as usize * TILE;
    let end = end_of_seen::<N>(&*memory, batch);
    let mut from = first_seen::<N>(&*memory);

    let mut scores = Array::<f32>::new(comptime!(BLOCK * BLOCK));
    let mut changes = Array::<f32>::new(comptime!(BLOCK * BLOCK));
    let mut sums = Array::<Vector<f32, N>>::new(comptime!(form.sums()));
    #[unroll]
    for index in 0..form.sums() {
        sums[index] = Vector::<f32, N>::new(0.0f32);
    }
    let mut log_sums = Array::<f32>::new(BLOCK);
    let mut along = Array::<f32>::new(BLOCK);
    let mut factors = Array::<f32>::new(BLOCK);
    #[unroll]
    for i in 0..BLOCK {
        let token = first + row + i * SIDE;
        log_sums[i] = 0.0f32;
        along[i] = 0.0f32;
        factors[i] = score_factor(memory.seen[MOST * TILE + row + i * SIDE], batch);
        if token < batch.tokens {
            let place = statistics_of(token, inputs.head, batch);
            log_sums[i] = inputs.statistics[place];
            along[i] = inputs.statistics[place + 1];
        }
    }

    let own = rows(first, batch.tokens);
    while from < end {
        let others = rows(from, end);
        multiply::<N>(
            &mut scores,
            memory,
            &inputs.queries,
            &own,
            &inputs.keys,
            &others,
            false,
            form,
        );
        multiply::<N>(
            &mut changes,
            memory,
            &inputs.dy,
            &own,
            &inputs.values,
            &others,
            false,
            form,
        );
        #[unroll]
        for i in 0..BLOCK {
            let this = row + i * SIDE;
            #[unroll]
            for j in 0..BLOCK {
                let place = column + j * SIDE;
                let other = (from + place) as u32;
                let visible = is_visible::<N>(&*memory, this, other);
                let mut change = changes[i * BLOCK + j];
                if batch.drops == 1 {
                    change *= mask_entry::<N>(&*memory, batch, this, other);
                }
                let score = scores[i * BLOCK + j] * batch.scale;
                let probability = (score - log_sums[i]).exp();
                let weight = probability * (change - along[i]);
                memory.weights[this * PITCH + place] = select(visible, weight, 0.0f32);
            }
        }
        accumulate::<N>(&mut sums, memory, &inputs.keys, &others, form);
        from += TILE;
    }
    write::<N>(
        gradients,
        gradient_rows,
        &sums,
        &factors,
        batch,
        inputs.head,
        form,
    );
}

/// What the gradients of a tile of keys and values are summed up in: a unit's [`Form::sums`] of each.
#[derive(CubeType)]
struct KeyValueSums<N: Size> {
    keys: Array<Vector<f32, N>>,
    values: Array<Vector<f32, N>>,
}

#[cube]
fn key_value_sums<N: Size>(#[comptime] form: Form) -> KeyValueSums<N> {
    let mut keys = Array::<Vector<f32, N>>::new(comptime!(form.sums()));
    let mut values = Array::<Vector<f32, N>>::new(comptime!(form.sums()));
    #[unroll]
    for index in 0..form.sums() {
        keys[index] = Vector::<f32, N>::new(0.0f32);
        values[index] = Vector::<f32, N>::new(0.0f32);
    }
    KeyValueSums::<N> { keys, values }
}

/// Adds what one of the query's heads makes of the gradients of a tile of keys and values: `dSᵀ Q` and `(P * keep)ᵀ dO`.
#[cube]
fn add_key_value_gradients<N: Size>(
    sums: &mut KeyValueSums<N>,
    inputs: &Inputs<'_, N>,
    memory: &mut Memory<N>,
    batch: &Batch,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let row = unit / SIDE;
    let column = unit % SIDE;
    let first = CUBE_POS_X as usize * TILE;
    let end = end_of_seen::<N>(&*memory, batch);
    let mut from = first_seen::<N>(&*memory);
    let mut scores = Array::<f32>::new(comptime!(BLOCK * BLOCK));
    let mut changes = Array::<f32>::new(comptime!(BLOCK * BLOCK));
    let own = rows(first, batch.tokens);
    while from < end {
        let others = rows(from, end);
        multiply::<N>(
            &mut scores,
            memory,
            &inputs.keys,
            &own,
            &inputs.queries,
            &others,
            false,
            form,
        );
        multiply::<N>(
            &mut changes,
            memory,
            &inputs.values,
            &own,
            &inputs.dy,
            &others,
            false,
            form,
        );
        #[unroll]
        for j in 0..BLOCK {
            let place = column + j * SIDE;
            let other = (from + place) as u32;
            let mut log_sum = 0.0f32.runtime();
            let mut along = 0.0f32.runtime();
            if from + place < end {
                let place = statistics_of(from + place, inputs.head, batch);
                log_sum = inputs.statistics[place];
                along = inputs.statistics[place + 1];
            }
            #[unroll]
            for i in 0..BLOCK {
                let this = row + i * SIDE;
                let visible = is_visible::<N>(&*memory, this, other);
                let score = scores[i * BLOCK + j] * batch.scale;
                let probability = (score - log_sum).exp();
                let mut weight = probability;
                let mut change = changes[i * BLOCK + j];
                if batch.drops == 1 {
                    let mask = mask_entry::<N>(&*memory, batch, this, other);
                    weight = probability * mask;
                    change *= mask;
                }
                memory.weights[this * PITCH + place] = select(visible, weight, 0.0f32);
                // From here on the change of the score.
                let change = probability * (change - along);
                changes[i * BLOCK + j] = select(visible, change, 0.0f32);
            }
        }
        accumulate::<N>(&mut sums.values, memory, &inputs.dy, &others, form);
        // Nobody reads the weights any more.
        sync_cube();
        #[unroll]
        for i in 0..BLOCK {
            #[unroll]
            for j in 0..BLOCK {
                let place = (row + i * SIDE) * PITCH + column + j * SIDE;
                memory.weights[place] = changes[i * BLOCK + j];
            }
        }
        accumulate::<N>(&mut sums.keys, memory, &inputs.queries, &others, form);
        from += TILE;
    }
}

/// Writes the gradients of a tile of keys and values in one of their heads. The sums over the query's heads that share it are those of
/// `dSᵀ Q`, which still lack the scores' factor, and `(P * keep)ᵀ dO`.
#[cube]
fn write_key_value_gradients<N: Size>(
    sums: &KeyValueSums<N>,
    memory: &Memory<N>,
    gradients: &mut [Vector<f32, N>],
    key_rows: &Place,
    value_rows: &Place,
    batch: &Batch,
    head: u32,
    #[comptime] form: Form,
) {
    let row = UNIT_POS as usize / SIDE;
    let mut factors = Array::<f32>::new(BLOCK);
    #[unroll]
    for i in 0..BLOCK {
        factors[i] = score_factor(memory.seen[MOST * TILE + row + i * SIDE], batch);
    }
    write::<N>(gradients, key_rows, &sums.keys, &factors, batch, head, form);
    #[unroll]
    for i in 0..BLOCK {
        factors[i] = 1.0f32;
    }
    write::<N>(
        gradients,
        value_rows,
        &sums.values,
        &factors,
        batch,
        head,
        form,
    );
}

/// The gradients of query, key and value. Cubes whose third place is 0 own queries, the others keys and values, as far as these have
/// heads.
#[cube(launch, create_dummy_kernel)]
pub(super) fn attention_gradients<I: Int, N: Size>(
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
    let mut memory = memory::<N>(form);
    if CUBE_POS_Z == 0 {
        let head = CUBE_POS_Y;
        let shared_head = head / batch.group;
        let inputs = inputs::<N>(
            matrix::<N>(query, &query_rows, head, form),
            matrix::<N>(key, &key_rows, shared_head, form),
            matrix::<N>(value, &value_rows, shared_head, form),
            matrix::<N>(dy, &dy_rows, head, form),
            head,
            statistics,
        );
        find_seen::<I, N>(&mut memory, offsets, &batch, head, false);
        query_gradient::<N>(
            &inputs,
            &mut memory,
            gradients,
            &query_gradient_rows,
            &batch,
            form,
        );
    } else if CUBE_POS_Y * batch.group < batch.heads {
        let shared_head = CUBE_POS_Y;
        let mut sums = key_value_sums::<N>(form);
        for member in 0..batch.group {
            let head = shared_head * batch.group + member;
            let inputs = inputs::<N>(
                matrix::<N>(query, &query_rows, head, form),
                matrix::<N>(key, &key_rows, shared_head, form),
                matrix::<N>(value, &value_rows, shared_head, form),
                matrix::<N>(dy, &dy_rows, head, form),
                head,
                statistics,
            );
            // Nobody reads what the rows saw in the last head any more.
            sync_cube();
            find_seen::<I, N>(&mut memory, offsets, &batch, head, true);
            add_key_value_gradients::<N>(&mut sums, &inputs, &mut memory, &batch, form);
        }
        write_key_value_gradients::<N>(
            &sums,
            &memory,
            gradients,
            &key_gradient_rows,
            &value_gradient_rows,
            &batch,
            shared_head,
            form,
        );
    }
}
