use burn::backend::flex::FlexTensor;
use burn::backend::{DType, TensorMetadata};
use burn::tensor::bf16;
use rayon::prelude::*;

use crate::ops::Gelu;
use crate::ops::definitions::gelu::{TANH_CUBIC, TANH_SCALE};
use crate::ops::flex::activation_dtype::dense;
use crate::ops::flex::instructions::vectorized;
use crate::ops::flex::{CHUNK, contiguous, exclusive, mapped, tensor, values};
use crate::ops::vecmath::{normal, sigmoid};

/// `2 u`, and its derivative.
#[inline(always)]
fn twice_u(x: f32) -> (f32, f32) {
    const LINEAR: f32 = (2.0 * TANH_SCALE) as f32;
    const CUBIC: f32 = (2.0 * TANH_SCALE * TANH_CUBIC) as f32;
    let square = x * x;
    (x * (LINEAR + CUBIC * square), LINEAR + 3.0 * CUBIC * square)
}

#[inline(always)]
fn erf_form(x: f32) -> f32 {
    x * normal(x).0
}

#[inline(always)]
fn erf_slope(x: f32) -> f32 {
    const SCALE: f32 = 0.398_942_3; // 1 / sqrt(2 π)
    let (distribution, density) = normal(x);
    distribution + x * SCALE * density
}

#[inline(always)]
fn tanh_form(x: f32) -> f32 {
    x * sigmoid(twice_u(x).0)
}

#[inline(always)]
fn tanh_slope(x: f32) -> f32 {
    let (u, du) = twice_u(x);
    let gate = sigmoid(u);
    gate + x * gate * (1.0 - gate) * du
}

/// `y` of [`crate::ops::MtLoraBackend::activate_gelu`].
pub(crate) fn gelu(x: FlexTensor, form: Gelu) -> FlexTensor {
    let mut x = contiguous(x);
    // In the input's own memory if no other tensor shares it.
    if x.is_unique() && x.storage::<f32>().len() == values(&x).len() {
        let all = x.storage_mut::<f32>();
        all.par_chunks_mut(CHUNK).for_each(|x| match form {
            Gelu::Erf => each_in_place(x, erf_form),
            Gelu::Tanh => each_in_place(x, tanh_form),
        });
        return x;
    }
    let y = match form {
        Gelu::Erf => mapped(values(&x), erf_form),
        Gelu::Tanh => mapped(values(&x), tanh_form),
    };
    tensor(y, x.shape())
}

/// `dx` of [`crate::ops::MtLoraBackend::activate_gelu_backward`], in the gradient's own memory
/// if no other tensor shares it. `x` is of 32-bit floats, or was kept in bfloat16.
pub(crate) fn gelu_backward(x: FlexTensor, dy: FlexTensor, form: Gelu) -> FlexTensor {
    let mut dx = exclusive(dy);
    let dy = dx.storage_mut();
    match (x.dtype() == DType::BF16, form) {
        (true, Gelu::Erf) => multiply(dy, kept(&x.to_contiguous()), |x| erf_slope(dense(x))),
        (true, Gelu::Tanh) => multiply(dy, kept(&x.to_contiguous()), |x| tanh_slope(dense(x))),
        (false, Gelu::Erf) => multiply(dy, values(&contiguous(x)), erf_slope),
        (false, Gelu::Tanh) => multiply(dy, values(&contiguous(x)), tanh_slope),
    }
    dx
}

/// The values of a contiguous tensor of bfloat16.
fn kept(x: &FlexTensor) -> &[bf16] {
    x.as_slice().unwrap_or_default()
}

/// `y` times `f` of `x`.
fn multiply<X: Copy + Sync>(y: &mut [f32], x: &[X], f: impl Fn(X) -> f32 + Sync) {
    y.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(y, x)| multiply_each(y, x, &f));
}

vectorized! {
    /// `y` times `f` of `x`, element by element.
    fn multiply_each[X: Copy, F: Fn(X) -> f32](y: &mut [f32], x: &[X], f: &F) {
        for (y, x) in y.iter_mut().zip(x) {
            *y *= f(*x);
        }
    }
}

vectorized! {
    /// Each element becomes `f` of it.
    fn each_in_place[F: Fn(f32) -> f32](x: &mut [f32], f: F) {
        for x in x.iter_mut() {
            *x = f(*x);
        }
    }
}
