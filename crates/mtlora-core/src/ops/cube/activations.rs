//! GELU and SwiGLU whose inputs are kept in bfloat16, `ops/definitions/gelu.rs` and `swiglu.rs`: each pass is one launch, which also
//! rounds the inputs or widens them. Where inputs are kept as they are, the definitions are computed, of which Burn fuses GELU's.
//!
//! Bound: an element has 4 bytes in 32-bit floats and 2 in bfloat16, each read or written once.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::activation_dtype::{
    empty_bf16, first_of, second_of, unit_for_each_word, word_at, words, write_two,
};
use super::memory::{Output, uninitialised};
use crate::ops::Gelu;
use crate::ops::definitions::gelu::{TANH_CUBIC, TANH_SCALE};

/// `sqrt(1 / 2)`.
const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// `sqrt(1 / (2 π))`, the normal density at 0.
const DENSITY: f32 = (TANH_SCALE / 2.0) as f32;
/// The factor of `x` in `2 u`.
const TWICE_LINEAR: f32 = (2.0 * TANH_SCALE) as f32;
/// The factor of `x³` in `2 u`.
const TWICE_CUBIC: f32 = (2.0 * TANH_SCALE * TANH_CUBIC) as f32;

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (-x).exp())
}

/// `Φ(x)`, or `σ(2 u)`.
#[cube]
fn gate_of(x: f32, #[comptime] is_tanh: bool) -> f32 {
    if comptime!(is_tanh) {
        sigmoid(x * (TWICE_LINEAR + TWICE_CUBIC * x * x))
    } else {
        0.5f32 + 0.5f32 * Erf::erf(x * SQRT_HALF)
    }
}

/// The derivative at `x`.
#[cube]
fn gelu_slope(x: f32, #[comptime] is_tanh: bool) -> f32 {
    let gate = gate_of(x, is_tanh);
    if comptime!(is_tanh) {
        let change = TWICE_LINEAR + 3.0f32 * TWICE_CUBIC * x * x;
        gate + x * gate * (1.0f32 - gate) * change
    } else {
        gate + x * DENSITY * (-0.5f32 * x * x).exp()
    }
}

#[cube(launch, create_dummy_kernel)]
fn gelu_and_round_kernel(x: &[f32], words: &mut [u32], y: &mut [f32], #[comptime] is_tanh: bool) {
    let at = ABSOLUTE_POS;
    if at < words.len() {
        let place = at * 2;
        let first = x[place];
        let second = x[(place + 1).min(x.len() - 1)];
        words[at] = word_at(x, place);
        write_two(
            y,
            place,
            first * gate_of(first, is_tanh),
            second * gate_of(second, is_tanh),
        );
    }
}

#[cube(launch, create_dummy_kernel)]
fn rounded_gelu_backward_kernel(
    dy: &[f32],
    words: &[u32],
    dx: &mut [f32],
    #[comptime] is_tanh: bool,
) {
    let at = ABSOLUTE_POS;
    if at < words.len() {
        let place = at * 2;
        let word = words[at];
        let first = dy[place];
        let second = dy[(place + 1).min(dy.len() - 1)];
        write_two(
            dx,
            place,
            first * gelu_slope(first_of(word), is_tanh),
            second * gelu_slope(second_of(word), is_tanh),
        );
    }
}

#[cube(launch, create_dummy_kernel)]
fn swiglu_and_round_kernel(
    gate: &[f32],
    up: &[f32],
    gate_words: &mut [u32],
    up_words: &mut [u32],
    y: &mut [f32],
) {
    let at = ABSOLUTE_POS;
    if at < gate_words.len() {
        let place = at * 2;
        let after = (place + 1).min(gate.len() - 1);
        let first = gate[place] * sigmoid(gate[place]) * up[place];
        let second = gate[after] * sigmoid(gate[after]) * up[after];
        gate_words[at] = word_at(gate, place);
        up_words[at] = word_at(up, place);
        write_two(y, place, first, second);
    }
}

/// The derivative of `x σ(x)`.
#[cube]
fn swish_slope(x: f32) -> f32 {
    let open = sigmoid(x);
    open + x * open * (1.0f32 - open)
}

#[cube(launch, create_dummy_kernel)]
fn rounded_swiglu_backward_kernel(
    dy: &[f32],
    gate_words: &[u32],
    up_words: &[u32],
    d_gate: &mut [f32],
    d_up: &mut [f32],
) {
    let at = ABSOLUTE_POS;
    if at < gate_words.len() {
        let place = at * 2;
        let gates = gate_words[at];
        let ups = up_words[at];
        let first = dy[place];
        let second = dy[(place + 1).min(dy.len() - 1)];
        let first_gate = first_of(gates);
        let second_gate = second_of(gates);
        write_two(
            d_up,
            place,
            first * first_gate * sigmoid(first_gate),
            second * second_gate * sigmoid(second_gate),
        );
        write_two(
            d_gate,
            place,
            first * first_of(ups) * swish_slope(first_gate),
            second * second_of(ups) * swish_slope(second_gate),
        );
    }
}

/// [`crate::ops::MtLoraBackend::activate_gelu_and_rounded`], the output in the input's own memory if no other tensor shares it.
pub(super) fn gelu_and_rounded(x: CubeTensor, form: Gelu) -> (CubeTensor, CubeTensor) {
    let x = into_contiguous(x);
    let kept = empty_bf16(&x);
    let elements = x.shape().num_elements();
    if elements == 0 {
        return (x, kept);
    }
    let y = Output::over(&x, 0);
    let client = x.client.clone();
    let (count, dim) = unit_for_each_word(&client, elements);
    gelu_and_round_kernel::launch(
        &client,
        count,
        dim,
        x.into_buffer_arg(),
        words(&kept),
        y.argument(),
        form == Gelu::Tanh,
    );
    (y.tensor, kept)
}

/// [`crate::ops::MtLoraBackend::rounded_gelu_backward`], in the gradient's own memory if no other tensor shares it.
pub(super) fn rounded_gelu_backward(kept: &CubeTensor, dy: CubeTensor, form: Gelu) -> CubeTensor {
    let dy = into_contiguous(dy);
    let elements = dy.shape().num_elements();
    if elements == 0 {
        return dy;
    }
    let dx = Output::over(&dy, 0);
    let client = dy.client.clone();
    let (count, dim) = unit_for_each_word(&client, elements);
    rounded_gelu_backward_kernel::launch(
        &client,
        count,
        dim,
        dy.into_buffer_arg(),
        words(kept),
        dx.argument(),
        form == Gelu::Tanh,
    );
    dx.tensor
}

/// [`crate::ops::MtLoraBackend::swiglu_and_rounded`], the output in the gate's own memory if no other tensor shares it.
pub(super) fn swiglu_and_rounded(
    gate: CubeTensor,
    up: CubeTensor,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (gate, up) = (into_contiguous(gate), into_contiguous(up));
    let (kept_gate, kept_up) = (empty_bf16(&gate), empty_bf16(&up));
    let elements = gate.shape().num_elements();
    if elements == 0 {
        return (gate, kept_gate, kept_up);
    }
    let y = Output::over(&gate, 0);
    let client = gate.client.clone();
    let (count, dim) = unit_for_each_word(&client, elements);
    swiglu_and_round_kernel::launch(
        &client,
        count,
        dim,
        gate.into_buffer_arg(),
        up.into_buffer_arg(),
        words(&kept_gate),
        words(&kept_up),
        y.argument(),
    );
    (y.tensor, kept_gate, kept_up)
}

/// [`crate::ops::MtLoraBackend::rounded_swiglu_backward`], the gate's gradient in the memory of `dy` if no other tensor shares it.
pub(super) fn rounded_swiglu_backward(
    kept_gate: &CubeTensor,
    kept_up: &CubeTensor,
    dy: CubeTensor,
) -> (CubeTensor, CubeTensor) {
    let dy = into_contiguous(dy);
    let d_up = uninitialised(&dy, dy.shape(), dy.dtype());
    let elements = dy.shape().num_elements();
    if elements == 0 {
        return (dy, d_up);
    }
    let d_gate = Output::over(&dy, 0);
    let client = dy.client.clone();
    let (count, dim) = unit_for_each_word(&client, elements);
    rounded_swiglu_backward_kernel::launch(
        &client,
        count,
        dim,
        dy.into_buffer_arg(),
        words(kept_gate),
        words(kept_up),
        d_gate.argument(),
        d_up.clone().into_buffer_arg(),
    );
    (d_gate.tensor, d_up)
}
