//! Layer normalisation of rows, `ops/definitions/norm.rs`: one cube a row, whose units meet in shared memory. The row is read again
//! for each sum: 3 kB at a width of 768.
//!
//! Bound, if these reads are served by the device's cache: forward, each element of `x` is read once and each of `y` written once, 8 bytes; backward, `x` and `dy` are read once and
//! `dx` is written once, 12 bytes.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::memory::Rows;
use super::reduce::{BackwardSums, backward_sums, sum_of_units};
use super::row_launches::{launches, units_for};

/// Elements of a row that a unit has at least, where there are as many.
pub(super) const STRIP: usize = 2;

/// The sum of the row of `width` elements that begins at `start`.
#[cube]
fn sum_of_row(x: &[f32], start: usize, width: usize, #[comptime] units: usize) -> f32 {
    let mut own = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        own += x[start + column];
        column += units;
    }
    sum_of_units(own, units)
}

#[cube(launch, create_dummy_kernel)]
fn normalize_rows_kernel(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    y: &mut [f32],
    epsilon: f32,
    width: usize,
    stride: usize,
    first_row: usize,
    #[comptime] units: usize,
) {
    let start = (first_row + CUBE_POS_X as usize) * stride;
    let count = f32::cast_from(width as u32);
    let mean = sum_of_row(x, start, width, units) / count;
    let mut own = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let centred = x[start + column] - mean;
        own += centred * centred;
        column += units;
    }
    let variance = sum_of_units(own, units) / count;
    let inverse = 1.0f32 / (variance + epsilon).sqrt();
    let mut column = UNIT_POS as usize;
    while column < width {
        let h = (x[start + column] - mean) * inverse;
        y[start + column] = h * gamma[column] + beta[column];
        column += units;
    }
}

/// What the gradient of a row's elements is computed from. With the names of `ops/definitions/norm.rs`:
#[derive(CubeType)]
pub(super) struct GradientTerms {
    /// `mean(x)`
    pub mean: f32,
    /// `1 / sqrt(var + epsilon)`
    pub inverse: f32,
    /// `mean(g)`
    pub mean_g: f32,
    /// `mean(g * h)`
    pub mean_gh: f32,
}

/// The terms of the row that begins at `start_x` in `x` and at `start_dy` in `dy`, in all units.
#[cube]
pub(super) fn gradient_terms(
    x: &[f32],
    gamma: &[f32],
    dy: &[f32],
    start_x: usize,
    start_dy: usize,
    width: usize,
    epsilon: f32,
    #[comptime] units: usize,
) -> GradientTerms {
    let count = f32::cast_from(width as u32);
    let mean = sum_of_row(x, start_x, width, units) / count;
    let mut squares = 0.0f32;
    let mut gradients = 0.0f32;
    let mut products = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let centred = x[start_x + column] - mean;
        let g = dy[start_dy + column] * gamma[column];
        squares += centred * centred;
        gradients += g;
        products += g * centred;
        column += units;
    }
    let own = BackwardSums {
        squares,
        gradients,
        products,
    };
    let sums = backward_sums(own, units);
    let inverse = 1.0f32 / (sums.squares / count + epsilon).sqrt();
    GradientTerms {
        mean,
        inverse,
        mean_g: sums.gradients / count,
        mean_gh: sums.products * inverse / count,
    }
}

#[cube(launch, create_dummy_kernel)]
fn normalize_rows_backward_kernel(
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
    let terms = gradient_terms(x, gamma, dy, start_x, start_dy, width, epsilon, units);
    let mut column = UNIT_POS as usize;
    while column < width {
        let h = (x[start_x + column] - terms.mean) * terms.inverse;
        let g = dy[start_dy + column] * gamma[column];
        dx[start_dy + column] = (g - terms.mean_g - h * terms.mean_gh) * terms.inverse;
        column += units;
    }
}

/// [`crate::ops::MtLoraBackend::normalize_rows`], in the input's own memory if no other tensor shares it.
pub(super) fn normalize_rows(
    x: CubeTensor,
    gamma: CubeTensor,
    beta: CubeTensor,
    epsilon: f32,
) -> CubeTensor {
    let client = x.client.clone();
    let (gamma, beta) = (into_contiguous(gamma), into_contiguous(beta));
    let sides = [gamma.shape()[0], beta.shape()[0]];
    assert_eq!(sides, [x.shape()[1]; 2], "the width of x, gamma and beta");
    let (x, y) = Rows::of(x).with_output(0);
    let units = units_for(x.device(), x.width, STRIP);
    for (first, cubes, dim) in launches(&client, x.count, units) {
        normalize_rows_kernel::launch(
            &client,
            cubes,
            dim,
            x.argument(),
            gamma.clone().into_buffer_arg(),
            beta.clone().into_buffer_arg(),
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

/// [`crate::ops::MtLoraBackend::normalize_rows_backward`], in the gradient's own memory if no other tensor shares it.
pub(super) fn normalize_rows_backward(
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
        normalize_rows_backward_kernel::launch(
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
