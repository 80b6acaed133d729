//! The layer norm of a residual connection, `layer_norm(dropout(x) + residual)`, which is three operations by its definition
//! (`MtLoraBackend::add_and_normalize_rows`). As in `norm.rs`, a row has a cube.
//!
//! Bound: forward, `x` and `residual` are read once, and their sum and the output are written once, 16 bytes an element; backward, the
//! sum and `dy` are read once and two gradients are written once, 16 bytes.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::dropout::{Mask, mask};
use super::memory::{Rows, uninitialised};
use super::norm::{STRIP, gradient_terms};
use super::reduce::sum_of_units;
use super::row_launches::{launches, units_for};
use crate::ops::SeededDropout;

/// What stands for no dropout in the arguments of a kernel that is compiled without.
const NO_DROPOUT: SeededDropout = SeededDropout { prob: 0.0, seed: 0 };

#[cube(launch, create_dummy_kernel)]
fn add_and_normalize_rows_kernel(
    x: &[f32],
    residual: &[f32],
    gamma: &[f32],
    beta: &[f32],
    sum: &mut [f32],
    y: &mut [f32],
    mask: Mask,
    epsilon: f32,
    width: usize,
    stride_x: usize,
    stride_residual: usize,
    first_row: usize,
    #[comptime] drops: bool,
    #[comptime] units: usize,
) {
    let row = first_row + CUBE_POS_X as usize;
    let start = row * stride_x;
    let start_residual = row * stride_residual;
    let start_y = row * width;
    let mut own = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let mut added = x[start + column];
        if comptime!(drops) {
            added *= mask.entry((start_y + column) as u32);
        }
        added += residual[start_residual + column];
        sum[start + column] = added;
        own += added;
        column += units;
    }
    let count = f32::cast_from(width as u32);
    let mean = sum_of_units(own, units) / count;
    // Each unit reads what it has written itself.
    let mut own = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let centred = sum[start + column] - mean;
        own += centred * centred;
        column += units;
    }
    let variance = sum_of_units(own, units) / count;
    let inverse = 1.0f32 / (variance + epsilon).sqrt();
    let mut column = UNIT_POS as usize;
    while column < width {
        let h = (sum[start + column] - mean) * inverse;
        y[start_y + column] = h * gamma[column] + beta[column];
        column += units;
    }
}

/// The gradient of the sum, and of what was dropped.
#[cube(launch, create_dummy_kernel)]
fn add_and_normalize_rows_backward_kernel(
    sum: &[f32],
    gamma: &[f32],
    dy: &[f32],
    dsum: &mut [f32],
    dx: &mut [f32],
    mask: Mask,
    epsilon: f32,
    width: usize,
    stride_sum: usize,
    stride_dy: usize,
    first_row: usize,
    #[comptime] units: usize,
) {
    let row = first_row + CUBE_POS_X as usize;
    let start = row * stride_sum;
    let start_dy = row * stride_dy;
    let start_dx = row * width;
    let terms = gradient_terms(sum, gamma, dy, start, start_dy, width, epsilon, units);
    let mut column = UNIT_POS as usize;
    while column < width {
        let h = (sum[start + column] - terms.mean) * terms.inverse;
        let g = dy[start_dy + column] * gamma[column];
        let gradient = (g - terms.mean_g - h * terms.mean_gh) * terms.inverse;
        dsum[start_dy + column] = gradient;
        dx[start_dx + column] = gradient * mask.entry((start_dx + column) as u32);
        column += units;
    }
}

/// [`crate::ops::MtLoraBackend::add_and_normalize_rows`]: the output and the sum, which takes the memory of `x` if no other tensor
/// shares it.
pub(super) fn add_and_normalize_rows(
    x: CubeTensor,
    residual: CubeTensor,
    gamma: CubeTensor,
    beta: CubeTensor,
    dropout: Option<SeededDropout>,
    epsilon: f32,
) -> (CubeTensor, CubeTensor) {
    let client = x.client.clone();
    let (gamma, beta) = (into_contiguous(gamma), into_contiguous(beta));
    let sides = [gamma.shape()[0], beta.shape()[0]];
    assert_eq!(sides, [x.shape()[1]; 2], "the width of x, gamma and beta");
    assert_eq!(x.shape(), residual.shape(), "the shape of x and residual");
    let y = uninitialised(&x, x.shape(), x.dtype());
    let residual = Rows::of(residual);
    let (x, sum) = Rows::of(x).with_output(0);
    let units = units_for(x.device(), x.width, STRIP);
    for (first, cubes, dim) in launches(&client, x.count, units) {
        add_and_normalize_rows_kernel::launch(
            &client,
            cubes,
            dim,
            x.argument(),
            residual.argument(),
            gamma.clone().into_buffer_arg(),
            beta.clone().into_buffer_arg(),
            sum.argument(),
            y.clone().into_buffer_arg(),
            mask(dropout.unwrap_or(NO_DROPOUT)),
            epsilon,
            x.width,
            x.stride,
            residual.stride,
            first,
            dropout.is_some(),
            units,
        );
    }
    (y, sum.tensor)
}

/// [`crate::ops::MtLoraBackend::add_and_normalize_rows_backward`] with dropout: the gradients of `x` and of `residual`, of which the
/// latter takes the memory of `dy` if no other tensor shares it.
pub(super) fn add_and_normalize_rows_backward(
    sum: CubeTensor,
    gamma: CubeTensor,
    dy: CubeTensor,
    dropout: SeededDropout,
    epsilon: f32,
) -> (CubeTensor, CubeTensor) {
    let client = sum.client.clone();
    let gamma = into_contiguous(gamma);
    assert_eq!(
        sum.shape(),
        dy.shape(),
        "the shape of the sum and the gradient"
    );
    assert_eq!(
        sum.shape()[1],
        gamma.shape()[0],
        "the width of the sum and gamma"
    );
    let dx = uninitialised(&dy, dy.shape(), dy.dtype());
    let sum = Rows::of(sum);
    let (dy, dsum) = Rows::of(dy).with_output(2);
    let units = units_for(sum.device(), sum.width, STRIP);
    for (first, cubes, dim) in launches(&client, sum.count, units) {
        add_and_normalize_rows_backward_kernel::launch(
            &client,
            cubes,
            dim,
            sum.argument(),
            gamma.clone().into_buffer_arg(),
            dy.argument(),
            dsum.argument(),
            dx.clone().into_buffer_arg(),
            mask(dropout),
            epsilon,
            sum.width,
            sum.stride,
            dy.stride,
            first,
            units,
        );
    }
    (dx, dsum.tensor)
}
