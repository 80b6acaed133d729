use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::instructions::vectorized;
use super::reduce::{sum_of, summed_rows};
use super::{CHUNK, contiguous, exclusive, made, tensor, values};

/// Mean and `1 / sqrt(variance + epsilon)`.
#[inline(always)]
fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let width = x.len() as f32;
    let mean = sum_of(x, x, |x, _| x) / width;
    let variance = sum_of(x, x, |x, _| (x - mean) * (x - mean)) / width;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

vectorized! {
    /// `y` of whole rows.
    fn forward_rows(y: &mut [f32], x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
        let width = gamma.len().max(1);
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, inverse) = moments(x, epsilon);
            for (((y, x), gamma), beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
                *y = (x - mean) * inverse * gamma + beta;
            }
        }
    }
}

vectorized! {
    /// `dy` of whole rows becomes `dx`.
    fn backward_rows(dy: &mut [f32], x: &[f32], gamma: &[f32], epsilon: f32) {
        let width = gamma.len().max(1);
        for (dy, x) in dy.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, inverse) = moments(x, epsilon);
            for (dy, gamma) in dy.iter_mut().zip(gamma) {
                *dy *= gamma;
            }
            let middle = sum_of(dy, dy, |g, _| g) / width as f32;
            let along = sum_of(dy, x, |g, x| g * (x - mean) * inverse) / width as f32;
            for (dy, x) in dy.iter_mut().zip(x) {
                *dy = (*dy - middle - (x - mean) * inverse * along) * inverse;
            }
        }
    }
}

/// `y` of [`crate::ops::MtLoraBackend::normalize_rows`].
pub(crate) fn normalize_rows(
    x: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    epsilon: f32,
) -> FlexTensor {
    let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
    let (x_values, gamma, beta) = (values(&x), values(&gamma), values(&beta));
    let sides = [x.shape()[1], beta.len()];
    assert_eq!(sides, [gamma.len(); 2], "the width of x, gamma and beta");
    let chunk = rows(gamma.len().max(1));
    let y = made(x_values.len(), chunk, |index, y| {
        let x = &x_values[index * chunk..][..y.len()];
        forward_rows(y, x, gamma, beta, epsilon);
    });
    tensor(y, x.shape())
}

/// `dx` of [`crate::ops::MtLoraBackend::normalize_rows_backward`], in the gradient's own memory
/// if no other tensor shares it.
pub(crate) fn normalize_rows_backward(
    x: FlexTensor,
    gamma: FlexTensor,
    dy: FlexTensor,
    epsilon: f32,
) -> FlexTensor {
    let (x, gamma, mut dx) = (contiguous(x), contiguous(gamma), exclusive(dy));
    assert_eq!(x.shape(), dx.shape(), "the shape of x and its gradient");
    let (x, gamma) = (values(&x), values(&gamma));
    assert_eq!(dx.shape()[1], gamma.len(), "the width of x and gamma");
    let chunk = rows(gamma.len().max(1));
    dx.storage_mut::<f32>()
        .par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .for_each(|(dx, x)| backward_rows(dx, x, gamma, epsilon));
    dx
}

vectorized! {
    /// Adds what whole rows contribute to `gamma`'s gradient.
    fn add_gamma(sums: &mut [f32], x: &[f32], dy: &[f32], epsilon: f32) {
        let width = sums.len().max(1);
        for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
            let (mean, inverse) = moments(x, epsilon);
            for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                *sum += (x - mean) * inverse * dy;
            }
        }
    }
}

/// [`crate::ops::MtLoraBackend::normalize_rows_gamma_backward`].
pub(crate) fn normalize_rows_gamma_backward(
    x: FlexTensor,
    dy: FlexTensor,
    epsilon: f32,
) -> FlexTensor {
    assert_eq!(x.shape(), dy.shape(), "the shape of x and its gradient");
    let (x, dy, width) = (contiguous(x.clone()), contiguous(dy), x.shape()[1]);
    let sums = summed_rows(values(&x), values(&dy), width, |sums, x, dy| {
        add_gamma(sums, x, dy, epsilon);
    });
    tensor(sums, Shape::from([width]))
}

/// Elements of the whole rows that one task works on.
pub(super) fn rows(width: usize) -> usize {
    (CHUNK / width).max(1) * width
}
