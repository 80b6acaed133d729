//! Root mean square normalisation of rows, `ops/definitions/rms_norm.rs`: one cube a row, as for layer norm in
//! [`norm`](super::norm).
//!
//! Bound, if the row's second read is served by the device's cache: forward, each element of `x` is read once and each of `y` written
//! once, 8 bytes; backward, `x` and `dy` are read once and `dx` is written once, 12 bytes.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::memory::Rows;
use super::norm::STRIP;
use super::reduce::sum_of_units;
use super::row_launches::{launches, units_for};

#[cube(launch, create_dummy_kernel)]
fn rms_normalize_rows_kernel(
    x: &[f32],
    gamma: &[f32],
    y: &mut [f32],
    epsilon: f32,
    width: usize,
    stride: usize,
    first_row: usize,
    #[comptime] units: usize,
) {
    let start = (first_row + CUBE_POS_X as usize) * stride;
    let mut squares = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let value = x[start + column];
        squares += value * value;
        column += units;
    }
    let mean = sum_of_units(squares, units) / f32::cast_from(width as u32);
    let inverse = 1.0f32 / (mean + epsilon).sqrt();
    let mut column = UNIT_POS as usize;
    while column < width {
        y[start + column] = x[start + column] * inverse * gamma[column];
        column += units;
    }
}

#[cube(launch, create_dummy_kernel)]
fn rms_normalize_rows_backward_kernel(
    x: &[f32],
    gamma: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    epsilon: f32,
    width: usize,
    stride_x: usize,
    stride_dy: usize,
    first_row: usize,
    #[comptime] units: usize,
) {
    let row = first_row + CUBE_POS_X as usize;
    let start_x = row * stride_x;
    let start_dy = row * stride_dy;
    let mut squares = 0.0f32;
    let mut products = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let value = x[start_x + column];
        squares += value * value;
        products += dy[start_dy + column] * gamma[column] * value;
        column += units;
    }
    let count = f32::cast_from(width as u32);
    let mean = sum_of_units(squares, units) / count;
    let inverse = 1.0f32 / (mean + epsilon).sqrt();
    // mean(g * h), with the names of `ops/definitions/rms_norm.rs`.
    let along = sum_of_units(products, units) * inverse / count;
    let mut column = UNIT_POS as usize;
    while column < width {
        let h = x[start_x + column] * inverse;
        let g = dy[start_dy + column] * gamma[column];
        dx[start_dy + column] = (g - h * along) * inverse;
        column += units;
    }
}

/// [`crate::ops::MtLoraBackend::rms_normalize_rows`], in the input's own memory if no other tensor shares it.
pub(super) fn rms_normalize_rows(x: CubeTensor, gamma: CubeTensor, epsilon: f32) -> CubeTensor {
    let client = x.client.clone();
    let gamma = into_contiguous(gamma);
    assert_eq!(x.shape()[1], gamma.shape()[0], "the width of x and gamma");
    let (x, y) = Rows::of(x).with_output(0);
    let units = units_for(x.device(), x.width, STRIP);
    for (first, cubes, dim) in launches(&client, x.count, units) {
        rms_normalize_rows_kernel::launch(
            &client,
            cubes,
            dim,
            x.argument(),
            gamma.clone().into_buffer_arg(),
            y.argument(),
            epsilon,
            x.width,
            x.stride,
            first,
            units,
        );
    }
    y.tensor
}

/// [`crate::ops::MtLoraBackend::rms_normalize_rows_backward`], in the gradient's own memory if no other tensor shares it.
pub(super) fn rms_normalize_rows_backward(
    x: CubeTensor,
    gamma: CubeTensor,
    dy: CubeTensor,
    epsilon: f32,
) -> CubeTensor {
    let client = x.client.clone();
    let gamma = into_contiguous(gamma);
    assert_eq!(x.shape(), dy.shape(), "the shape of x and its gradient");
    assert_eq!(x.shape()[1], gamma.shape()[0], "the width of x and gamma");
    let x = Rows::of(x);
    let (dy, dx) = Rows::of(dy).with_output(2);
    let units = units_for(x.device(), x.width, STRIP);
    for (first, cubes, dim) in launches(&client, x.count, units) {
        rms_normalize_rows_backward_kernel::launch(
            &client,
            cubes,
            dim,
            x.argument(),
            gamma.clone().into_buffer_arg(),
            dy.argument(),
            dx.argument(),
            epsilon,
            x.width,
            x.stride,
            dy.stride,
            first,
            units,
        );
    }
    dx.tensor
}
