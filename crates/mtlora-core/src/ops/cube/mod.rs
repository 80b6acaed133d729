//! Kernels for CubeCL's devices (wgpu, Vulkan, Metal, CUDA, ROCm): one file an operation. Each names its definition and the
//! least number of bytes that it has to move.
//!
//! `burn::backend::Cube` is `Fusion<CubeBackend>`: an operation with `#[fusion(dtype = ..., shape = ...)]` or
//! `#[fusion(meta = ...)]` in `ops/backend.rs` is queued as one and runs here, on tensors that are in memory. One with
//! `#[fusion(default)]` is taken apart above fusion, so that Burn fuses its parts with what is around them.
//!
//! A kernel sums in an order that depends on nothing but the shapes, so that it gives the same bits each time. It binds at
//! most eight buffers, writes no literal of infinity and asks for no plane operation, which is what WebGPU allows.

mod activation_dtype;
mod activations;
mod attention;
mod cached;
mod cross_entropy;
mod dropout;
mod memory;
mod norm;
mod product;
mod reduce;
mod residual_norm;
mod rms_norm;
mod rotary;
mod row_launches;
mod squares;
mod words;

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{Device, FloatTensor, IntTensor, QuantizedTensor};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;

use super::definitions;
use super::{
    AttentionConstants, AttentionForward, AttentionLayout, BackendCapabilities, Capabilities, Gelu,
    MtLoraBackend, Optional, OptionalInt, SeededDropout,
};
use crate::Contexts;
use activation_dtype::is_bf16_in_words;
use attention::Projections;
pub(super) use attention::operations::{
    attention_and_log_sum_exp, attention_gradients, fused_attention_and_log_sum_exp,
};

/// Whether all are of 32-bit floats, which the kernels are for.
fn suits(tensors: &[&FloatTensor<CubeBackend>]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

impl BackendCapabilities for CubeBackend {
    fn capabilities(device: &Device<Self>) -> Capabilities {
        let largest = device.client().properties().memory.max_page_size;
        Capabilities {
            largest_tensor: usize::try_from(largest).unwrap_or(usize::MAX),
            seeded_dropout: true,
            reads_offsets: true,
            adds_and_normalizes: true,
            fixes_products: crate::autotune::fixes_products(device),
            unpacks_words: true,
            ..Capabilities::of_definitions::<Self>(device)
        }
    }
}

impl MtLoraBackend for CubeBackend {
    fn segment_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        Self::segment_attention_and_log_sum_exp(query, key, value, constants, layout).0
    }

    fn segment_attention_and_log_sum_exp(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, Optional<Self>) {
        let projections = Projections::Separate([query, key, value]);
        let (output, log_sum_exp) =
            attention::operations::output_and_log_sum_exp(projections, constants, &layout);
        (output, Optional::Given(log_sum_exp))
    }

    fn segment_attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        forward: AttentionForward<Self>,
        dy: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let kept = [query, key, value];
        let [dq, dk, dv] = attention::operations::gradients(kept, constants, forward, dy, &layout);
        (dq, dk, dv)
    }

    fn fused_segment_attention(
        fused: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        Self::fused_segment_attention_and_log_sum_exp(fused, constants, layout).0
    }

    fn fused_segment_attention_and_log_sum_exp(
        fused: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, Optional<Self>) {
        let projections = Projections::Fused(fused);
        let (output, log_sum_exp) =
            attention::operations::output_and_log_sum_exp(projections, constants, &layout);
        (output, Optional::Given(log_sum_exp))
    }

    fn fused_segment_attention_backward(
        fused: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        forward: AttentionForward<Self>,
        dy: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        attention::operations::fused_gradient(fused, constants, forward, dy, &layout)
    }

    fn cached_attention(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        places: OptionalInt<Self>,
        contexts: Contexts,
        heads: usize,
        scale: f64,
    ) -> FloatTensor<Self> {
        match places {
            OptionalInt::Given(places) if cached::suits(&query, &keys, &values, heads) => {
                cached::cached_attention(query, [keys, values], places, heads, scale as f32)
            }
            _ => definitions::cached::forward::<Self>(query, keys, values, &contexts, heads, scale),
        }
    }

    fn fixed_product(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        sum: Optional<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let sum = sum.into_option();
        let tensors = [Some(&a), Some(&b), sum.as_ref()];
        let tensors: Vec<_> = tensors.into_iter().flatten().collect();
        if suits(&tensors) {
            product::product(a, b, sum, scale as f32)
        } else {
            definitions::linear::add::<Self>(sum, Self::float_matmul(a, b), scale)
        }
    }

    fn packed_product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        bias: Optional<Self>,
        turned: bool,
    ) -> FloatTensor<Self> {
        let (own, full) = (x.dtype(), DType::F32.into());
        let bias = bias.into_option().map(|bias| Self::float_cast(bias, full));
        let y = words::product(Self::float_cast(x, full), &weight, bias, turned);
        Self::float_cast(y, own.into())
    }

    fn unpack_words(weight: QuantizedTensor<Self>) -> FloatTensor<Self> {
        words::values(&weight)
    }

    fn packed_rows(table: QuantizedTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        words::rows(&table, ids)
    }

    fn seeded_dropout(x: FloatTensor<Self>, dropout: SeededDropout) -> FloatTensor<Self> {
        if suits(&[&x]) {
            dropout::seeded_dropout(x, dropout)
        } else {
            definitions::dropout::forward::<Self>(x, dropout)
        }
    }

    fn rounded(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if suits(&[&x]) {
            activation_dtype::rounded(x)
        } else {
            Self::float_cast(x, DType::BF16.into())
        }
    }

    fn widened(kept: FloatTensor<Self>) -> FloatTensor<Self> {
        if is_bf16_in_words(&kept) {
            activation_dtype::widened(&kept)
        } else {
            Self::float_cast(kept, DType::F32.into())
        }
    }

    fn rounded_values(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if suits(&[&x]) {
            activation_dtype::rounded_values(x)
        } else {
            definitions::activation_dtype::rounded_values::<Self>(x)
        }
    }

    fn rounded_projections(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
    ) -> (
        (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>),
        (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>),
    ) {
        let inputs = [query, key, value];
        let rounded = match suits(&inputs.each_ref()) {
            true => activation_dtype::rounded_projections(inputs),
            false => inputs.map(Self::rounded_values),
        };
        let [(query, q), (key, k), (value, v)] = rounded;
        ((query, key, value), (q, k, v))
    }

    fn activate_gelu_and_rounded(
        x: FloatTensor<Self>,
        form: Gelu,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if suits(&[&x]) {
            activations::gelu_and_rounded(x, form)
        } else {
            definitions::gelu::forward_and_rounded::<Self>(x, form)
        }
    }

    fn rounded_gelu_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        form: Gelu,
    ) -> FloatTensor<Self> {
        if is_bf16_in_words(&x) && suits(&[&dy]) {
            activations::rounded_gelu_backward(&x, dy, form)
        } else {
            definitions::gelu::rounded_backward::<Self>(x, dy, form)
        }
    }

    fn swiglu_and_rounded(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if suits(&[&gate, &up]) {
            activations::swiglu_and_rounded(gate, up)
        } else {
            definitions::swiglu::forward_and_rounded::<Self>(gate, up)
        }
    }

    fn rounded_swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if is_bf16_in_words(&gate) && is_bf16_in_words(&up) && suits(&[&dy]) {
            activations::rounded_swiglu_backward(&gate, &up, dy)
        } else {
            definitions::swiglu::rounded_backward::<Self>(gate, up, dy)
        }
    }

    fn cross_entropy_rows(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        smoothing: f64,
    ) -> FloatTensor<Self> {
        if suits(&[&logits]) {
            cross_entropy::cross_entropy_rows(logits, targets, smoothing as f32)
        } else {
            definitions::cross_entropy::row_losses::<Self>(logits, targets, smoothing)
        }
    }

    fn cross_entropy_rows_and_gradients(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        smoothing: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if suits(&[&logits]) {
            cross_entropy::cross_entropy_rows_and_gradients(logits, targets, smoothing as f32)
        } else {
            definitions::cross_entropy::row_losses_and_gradients::<Self>(logits, targets, smoothing)
        }
    }

    fn add_and_normalize_rows(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        dropout: Option<SeededDropout>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if suits(&[&x, &residual, &gamma, &beta]) {
            let epsilon = epsilon as f32;
            residual_norm::add_and_normalize_rows(x, residual, gamma, beta, dropout, epsilon)
        } else {
            definitions::norm::forward_of_sum::<Self>([x, residual], gamma, beta, dropout, epsilon)
        }
    }

    fn add_and_normalize_rows_backward(
        sum: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        dropout: Option<SeededDropout>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        match dropout {
            Some(dropout) if suits(&[&sum, &gamma, &dy]) => {
                let epsilon = epsilon as f32;
                residual_norm::add_and_normalize_rows_backward(sum, gamma, dy, dropout, epsilon)
            }
            _ => definitions::norm::backward_of_sum::<Self>(sum, gamma, dy, dropout, epsilon),
        }
    }

    fn sum_of_squares(
        first: FloatTensor<Self>,
        second: Optional<Self>,
        third: Optional<Self>,
        fourth: Optional<Self>,
        fifth: Optional<Self>,
        before: Optional<Self>,
    ) -> FloatTensor<Self> {
        let others = [second, third, fourth, fifth].map(Optional::into_option);
        let before = before.into_option();
        let given = [Some(&first), before.as_ref()].into_iter();
        let given: Vec<_> = given
            .chain(others.each_ref().map(Option::as_ref))
            .flatten()
            .collect();
        if suits(&given) {
            squares::sum_of_squares(first, others, before)
        } else {
            let others = others.into_iter().flatten();
            definitions::squares::sum_of_squares::<Self>(others, first, before)
        }
    }

    fn normalize_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        if suits(&[&x, &gamma, &beta]) {
            norm::normalize_rows(x, gamma, beta, epsilon as f32)
        } else {
            definitions::norm::forward::<Self>(x, gamma, beta, epsilon)
        }
    }

    fn normalize_rows_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        if suits(&[&x, &gamma, &dy]) {
            norm::normalize_rows_backward(x, gamma, dy, epsilon as f32)
        } else {
            definitions::norm::backward::<Self>(x, gamma, dy, epsilon)
        }
    }

    fn rms_normalize_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        if suits(&[&x, &gamma]) {
            rms_norm::rms_normalize_rows(x, gamma, epsilon as f32)
        } else {
            definitions::rms_norm::forward::<Self>(x, gamma, epsilon)
        }
    }

    fn rms_normalize_rows_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        if suits(&[&x, &gamma, &dy]) {
            rms_norm::rms_normalize_rows_backward(x, gamma, dy, epsilon as f32)
        } else {
            definitions::rms_norm::backward::<Self>(x, gamma, dy, epsilon)
        }
    }

    fn rotate_heads(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if suits(&[&x, &cos, &sin]) {
            rotary::rotate_heads(x, cos, sin)
        } else {
            definitions::rotary::forward::<Self>(x, cos, sin)
        }
    }
}
