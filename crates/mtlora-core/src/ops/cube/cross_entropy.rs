//! Cross-entropy of rows of logits, `ops/definitions/cross_entropy.rs`: one cube a row. Its units go along the row, each with the
//! largest value that it has seen and the sum of exponentials below that (the online softmax of arXiv 1805.02867), and meet in
//! shared memory. With the gradient they go along the row once more, and overwrite it.
//!
//! Bound: each logit is read once, 4 bytes; with the gradient it is read once and written once, 8 bytes. The second pass reads a row
//! that the cube has just read: 201 kB for a vocabulary of 50,257. The bound assumes that it still lies in the device's cache.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::memory::{Rows, uninitialised};
use super::row_launches::{launches, units_for};

/// Elements of a row that a unit reads before it adds them up: their reads overlap, and one rescaling serves all.
const STRIP: usize = 4;

/// What is known of a part of a row.
#[derive(CubeType)]
struct Part {
    /// Its largest value, or the row's first value where that is larger.
    largest: f32,
    /// The sum of `e^(x - largest)`.
    exponentials: f32,
    /// The sum of the values.
    sum: f32,
}

/// What is known of this unit's part of the row of `width` elements that begins at `start`: of the elements `unit`,
/// `unit + units`, ...
#[cube]
fn of_unit(logits: &[f32], start: usize, width: usize, #[comptime] units: usize) -> Part {
    let mut largest = logits[start];
    let mut exponentials = 0.0f32;
    let mut sum = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let mut strip = Array::<f32>::new(STRIP);
        let before = largest;
        #[unroll]
        for index in 0..STRIP {
            // Beyond the end the row's last element is read, and not used.
            let place = min(column + index * units, width - 1);
            strip[index] = logits[start + place];
            largest = max(largest, strip[index]);
        }
        exponentials *= (before - largest).exp();
        #[unroll]
        for index in 0..STRIP {
            let inside = column + index * units < width;
            exponentials += select(inside, (strip[index] - largest).exp(), 0.0f32);
            sum += select(inside, strip[index], 0.0f32);
        }
        column += STRIP * units;
    }
    Part {
        largest,
        exponentials,
        sum,
    }
}

/// What is known of the row, from what each unit knows.
#[cube]
fn of_row(own: Part, #[comptime] units: usize) -> Part {
    let unit = UNIT_POS as usize;
    let mut largest = Shared::<[f32]>::new_slice(units);
    let mut exponentials = Shared::<[f32]>::new_slice(units);
    let mut sum = Shared::<[f32]>::new_slice(units);
    largest[unit] = own.largest;
    exponentials[unit] = own.exponentials;
    sum[unit] = own.sum;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let distance = comptime!(units >> (level + 1));
        if unit < distance {
            let other = unit + distance;
            let both = max(largest[unit], largest[other]);
            exponentials[unit] = exponentials[unit] * (largest[unit] - both).exp()
                + exponentials[other] * (largest[other] - both).exp();
            sum[unit] = sum[unit] + sum[other];
            largest[unit] = both;
        }
        sync_cube();
    }
    Part {
        largest: largest[0],
        exponentials: exponentials[0],
        sum: sum[0],
    }
}

/// What the gradient of a row is computed from.
#[derive(CubeType)]
struct Row {
    start: usize,
    /// Whether the row has a target: it is ignored where that is negative.
    given: bool,
    target: usize,
    largest: f32,
    exponentials: f32,
    /// The smoothing's share of each token.
    even: f32,
}

/// The loss of this cube's row.
#[cube]
fn write_loss<I: Int>(
    logits: &[f32],
    targets: &[I],
    losses: &mut [f32],
    smoothing: f32,
    width: usize,
    stride: usize,
    first_row: usize,
    #[comptime] units: usize,
) -> Row {
    let row = first_row + CUBE_POS_X as usize;
    let start = row * stride;
    let target = i32::cast_from(targets[row]);
    let given = target >= 0i32;
    let target = select(given, target, 0i32) as usize;
    // Read before the gradient takes its place.
    let at_target = logits[start + target];
    let known = of_row(of_unit(logits, start, width, units), units);
    let even = smoothing / f32::cast_from(width as u32);
    if UNIT_POS == 0 {
        let log_sum = known.largest + known.exponentials.ln();
        // Without smoothing a logit of minus infinity is allowed.
        let smoothed = select(
            smoothing > 0.0f32,
            smoothing * log_sum - even * known.sum,
            0.0f32,
        );
        let loss = (1.0f32 - smoothing) * (log_sum - at_target) + smoothed;
        losses[row] = select(given, loss, 0.0f32);
    }
    Row {
        start,
        given,
        target,
        largest: known.largest,
        exponentials: known.exponentials,
        even,
    }
}

#[cube(launch, create_dummy_kernel)]
fn cross_entropy_kernel<I: Int>(
    logits: &[f32],
    targets: &[I],
    losses: &mut [f32],
    smoothing: f32,
    width: usize,
    stride: usize,
    first_row: usize,
    #[comptime] units: usize,
    #[define(I)] _targets: ElemType,
) {
    write_loss::<I>(
        logits, targets, losses, smoothing, width, stride, first_row, units,
    );
}

#[cube(launch, create_dummy_kernel)]
fn cross_entropy_gradient_kernel<I: Int>(
    logits: &[f32],
    targets: &[I],
    losses: &mut [f32],
    gradients: &mut [f32],
    smoothing: f32,
    width: usize,
    stride: usize,
    first_row: usize,
    #[comptime] units: usize,
    #[define(I)] _targets: ElemType,
) {
    let row = write_loss::<I>(
        logits, targets, losses, smoothing, width, stride, first_row, units,
    );
    let inverse = 1.0f32 / row.exponentials;
    let mut column = UNIT_POS as usize;
    while column < width {
        let p = (logits[row.start + column] - row.largest).exp() * inverse;
        let wanted = select(column == row.target, 1.0f32 - smoothing, 0.0f32);
        gradients[row.start + column] = select(row.given, p - row.even - wanted, 0.0f32);
        column += units;
    }
}

/// [`crate::ops::MtLoraBackend::cross_entropy_rows`].
pub(super) fn cross_entropy_rows(
    logits: CubeTensor,
    targets: CubeTensor,
    smoothing: f32,
) -> CubeTensor {
    let (client, targets) = (logits.client.clone(), into_contiguous(targets));
    let losses = uninitialised(&logits, Shape::from([logits.shape()[0]]), logits.dtype());
    let logits = Rows::of(logits);
    let (count, width, stride) = (logits.count, logits.width, logits.stride);
    let units = units_for(logits.device(), width, STRIP);
    for (first, cubes, dim) in launches(&client, count, units) {
        cross_entropy_kernel::launch(
            &client,
            cubes,
            dim,
            logits.argument(),
            targets.clone().into_buffer_arg(),
            losses.clone().into_buffer_arg(),
            smoothing,
            width,
            stride,
            first,
            units,
            dtype_to_storage_type(targets.dtype()),
        );
    }
    losses
}

/// [`crate::ops::MtLoraBackend::cross_entropy_rows_and_gradients`]; the gradient takes the logits' memory if no other tensor
/// shares it.
pub(super) fn cross_entropy_rows_and_gradients(
    logits: CubeTensor,
    targets: CubeTensor,
    smoothing: f32,
) -> (CubeTensor, CubeTensor) {
    let (client, targets) = (logits.client.clone(), into_contiguous(targets));
    let losses = uninitialised(&logits, Shape::from([logits.shape()[0]]), logits.dtype());
    let (logits, gradients) = Rows::of(logits).with_output(0);
    let (count, width, stride) = (logits.count, logits.width, logits.stride);
    let units = units_for(logits.device(), width, STRIP);
    for (first, cubes, dim) in launches(&client, count, units) {
        cross_entropy_gradient_kernel::launch(
            &client,
            cubes,
            dim,
            logits.argument(),
            targets.clone().into_buffer_arg(),
            losses.clone().into_buffer_arg(),
            gradients.argument(),
            smoothing,
            width,
            stride,
            first,
            units,
            dtype_to_storage_type(targets.dtype()),
        );
    }
    (losses, gradients.tensor)
}
