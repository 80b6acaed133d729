//! Kernels for burn-flex: plain loops that the compiler vectorises, and products in an instruction set's own
//! instructions, over rows or chunks that rayon's threads share. [`instructions`] has the rule for which of the two.
//!
//! A chunk's result depends on nothing but the chunk, so results are the same for every number of
//! threads.

mod activation_dtype;
mod adapted_norms;
mod attention;
mod cached;
mod cross_entropy;
mod elementwise;
mod embedding;
pub(super) mod instructions;
mod linear;
mod made;
mod norm;
mod optimizer;
mod products;
mod reduce;
mod relative_attention;
mod relative_bands;
mod rms_norm;
mod sum_rows;

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{Device, FloatTensor, IntTensor};
use burn::backend::{DType, Flex, Scalar, TensorMetadata};
use burn::tensor::{Bytes, Shape};

use elementwise::{dropout, gelu, rotary, scaled_columns, swiglu};
use made::{made, mapped};

use super::cpu::CpuChoice;
use super::definitions;
use super::definitions::activation_dtype::restored;
use super::{
    ActivationDtype, AdamWStep, AttentionConstants, AttentionForward, AttentionLayout,
    BackendCapabilities, Capabilities, Gelu, MtLoraBackend, Optional, OptionalInt, RelativeTables,
    SeededDropout, Weight,
};
use crate::Contexts;

/// Elements that one task works on: enough that the cost of a task does not matter, and few enough to stay
/// in the first caches.
const CHUNK: usize = 8 * 1024;

/// Whether all are of 32-bit floats, which the kernels are for.
fn suits(tensors: &[&FloatTensor<Flex>]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// Whether attention's inputs, and its mask if it was drawn, are of 32-bit floats.
fn suits_attention(inputs: &definitions::attention::Inputs<FloatTensor<Flex>>) -> bool {
    suits(&[&inputs.query, &inputs.key, &inputs.value])
        && inputs
            .tables
            .iter()
            .chain([&inputs.keep])
            .flatten()
            .all(|tensor| suits(&[tensor]))
}

/// The tensor with its values one after the other: a copy only where it is a view that skips some.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.as_slice::<f32>() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

/// The values of a tensor from [`contiguous`].
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().unwrap_or_default()
}

/// As [`contiguous`], with memory of exactly the tensor's size, which `storage_mut` may write to: that copies memory
/// which another tensor shares.
fn exclusive(tensor: FlexTensor) -> FlexTensor {
    let tensor = contiguous(tensor);
    if tensor.storage::<f32>().len() == values(&tensor).len() {
        tensor
    } else {
        self::tensor(values(&tensor).to_vec(), tensor.shape())
    }
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape),
        DType::F32,
    )
}

impl BackendCapabilities for Flex {
    fn capabilities(device: &Device<Self>) -> Capabilities {
        let multiplies_bf16 = instructions::multiplies_bf16();
        Capabilities {
            stores_packed: true,
            multiplies_bf16,
            // On 64-bit ARM, only linear layers have kernels for it.
            rounds_attention: multiplies_bf16 && cfg!(target_arch = "x86_64"),
            cpu: Some(CpuChoice::followed()),
            ..Capabilities::of_host::<Self>(device)
        }
    }
}

#[allow(clippy::too_many_arguments)]
impl MtLoraBackend for Flex {
    fn mixed_linear(
        x: FloatTensor<Self>,
        weight: Weight<Self>,
        bias: Optional<Self>,
    ) -> FloatTensor<Self> {
        linear::mixed_linear(x, weight, bias.into_option())
    }

    fn mixed_linear_backward(dy: FloatTensor<Self>, weight: Weight<Self>) -> FloatTensor<Self> {
        linear::mixed_linear_backward(dy, weight)
    }

    fn mixed_linear_weight_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        linear::mixed_linear_weight_backward(x, dy)
    }

    fn sum_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if suits(&[&x]) {
            sum_rows::sum_rows(x)
        } else {
            definitions::linear::sum_rows::<Self>(x)
        }
    }

    fn select_rows(table: Weight<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        embedding::select_rows(table, ids)
    }

    fn select_rows_backward(
        dy: FloatTensor<Self>,
        ids: IntTensor<Self>,
        rows: usize,
    ) -> FloatTensor<Self> {
        if suits(&[&dy]) {
            embedding::select_rows_backward(dy, ids, rows)
        } else {
            definitions::embedding::backward::<Self>(dy, ids, rows)
        }
    }

    fn add_matmul(
        sum: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        linear::add_matmul(sum, a, b, scale)
    }

    fn rank_matmul(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        if suits(&[&a, &b]) {
            linear::rank_matmul(a, b)
        } else {
            Self::float_matmul(a, b)
        }
    }

    fn adapted_squared_norms(
        weight: Weight<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        adapted_norms::adapted_squared_norms(weight, a, b, scale)
    }

    fn scale_columns(
        x: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        bias: Optional<Self>,
    ) -> FloatTensor<Self> {
        let bias = bias.into_option();
        let suits_bias = bias.as_ref().is_none_or(|bias| suits(&[bias]));
        if suits_bias && suits(&[&x, &factors]) {
            scaled_columns::scale_columns(x, factors, bias)
        } else {
            definitions::scaled_columns::forward::<Self>(x, factors, bias)
        }
    }

    fn scale_columns_backward(
        x: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if suits(&[&x, &factors, &dy]) {
            scaled_columns::scale_columns_backward(x, factors, dy)
        } else {
            definitions::scaled_columns::backward::<Self>(x, factors, dy)
        }
    }

    fn segment_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        let inputs =
            definitions::attention::Inputs::new(query, key, value, constants.keep.into_option());
        if suits_attention(&inputs) {
            attention::segment_attention(inputs, &layout)
        } else {
            definitions::attention::forward::<Self>(inputs, &layout)
        }
    }

    fn segment_attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        _: AttentionForward<Self>,
        dy: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [query, key, value] = [query, key, value].map(|kept| restored::<Self>(kept, &dy));
        let inputs =
            definitions::attention::Inputs::new(query, key, value, constants.keep.into_option());
        let [dq, dk, dv] = if suits_attention(&inputs) && suits(&[&dy]) {
            attention::segment_attention_backward(inputs, dy, &layout)
        } else {
            definitions::attention::backward::<Self>(&inputs, dy, &layout)
        };
        (dq, dk, dv)
    }

    fn fused_segment_attention_backward(
        fused: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        _: AttentionForward<Self>,
        dy: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        let fused = restored::<Self>(fused, &dy);
        let [query, key, value] = definitions::attention::parts::<Self>(fused);
        let inputs =
            definitions::attention::Inputs::new(query, key, value, constants.keep.into_option());
        if suits_attention(&inputs) && suits(&[&dy]) {
            attention::fused_segment_attention_backward(inputs, dy, &layout)
        } else {
            let gradients = definitions::attention::backward::<Self>(&inputs, dy, &layout);
            Self::float_cat(gradients.to_vec(), 1)
        }
    }

    fn relative_segment_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        tables: RelativeTables<Self>,
        constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        let keep = constants.keep.into_option();
        let inputs = definitions::attention::Inputs {
            tables: tables.into_options(),
            ..definitions::attention::Inputs::new(query, key, value, keep)
        };
        if suits_attention(&inputs) {
            attention::segment_attention(inputs, &layout)
        } else {
            definitions::attention::forward::<Self>(inputs, &layout)
        }
    }

    fn relative_segment_attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        tables: RelativeTables<Self>,
        constants: AttentionConstants<Self>,
        dy: FloatTensor<Self>,
        layout: AttentionLayout,
        wanted: [bool; 2],
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        RelativeTables<Self>,
    ) {
        let restore = |kept| restored::<Self>(kept, &dy);
        let [query, key, value] = [query, key, value].map(restore);
        let tables = tables.into_options().map(|table| table.map(restore));
        let keep = constants.keep.into_option();
        let inputs = definitions::attention::Inputs {
            tables,
            ..definitions::attention::Inputs::new(query, key, value, keep)
        };
        let ([dq, dk, dv], d_tables) = if suits_attention(&inputs) && suits(&[&dy]) {
            relative_attention::relative_segment_attention_backward(inputs, dy, &layout, wanted)
        } else {
            definitions::attention::gradients::<Self>(&inputs, dy, &layout)
        };
        (dq, dk, dv, RelativeTables::from(d_tables))
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

    fn widened(x: FloatTensor<Self>) -> FloatTensor<Self> {
        activation_dtype::widened(x)
    }

    fn activate_gelu(x: FloatTensor<Self>, form: Gelu, _: ActivationDtype) -> FloatTensor<Self> {
        if suits(&[&x]) {
            gelu::gelu(x, form)
        } else {
            definitions::gelu::forward::<Self>(x, form)
        }
    }

    fn activate_gelu_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        form: Gelu,
    ) -> FloatTensor<Self> {
        let kept = [DType::F32, DType::BF16].contains(&x.dtype());
        if kept && suits(&[&dy]) {
            gelu::gelu_backward(x, dy, form)
        } else {
            definitions::gelu::backward::<Self>(restored::<Self>(x, &dy), dy, form)
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

    fn normalize_rows_gamma_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        if suits(&[&x, &dy]) {
            norm::normalize_rows_gamma_backward(x, dy, epsilon as f32)
        } else {
            definitions::norm::gamma_backward::<Self>(x, dy, epsilon)
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

    fn rms_normalize_rows_gamma_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        if suits(&[&x, &dy]) {
            rms_norm::rms_normalize_rows_gamma_backward(x, dy, epsilon as f32)
        } else {
            definitions::rms_norm::gamma_backward::<Self>(x, dy, epsilon)
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

    fn swiglu(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        _: ActivationDtype,
    ) -> FloatTensor<Self> {
        if suits(&[&gate, &up]) {
            swiglu::swiglu(gate, up)
        } else {
            definitions::swiglu::forward::<Self>(gate, up)
        }
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [gate, up] = [gate, up].map(|kept| restored::<Self>(kept, &dy));
        if suits(&[&gate, &up, &dy]) {
            swiglu::swiglu_backward(gate, up, dy)
        } else {
            let [d_gate, d_up] = definitions::swiglu::backward::<Self>(gate, up, dy);
            (d_gate, d_up)
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

    fn cached_attention(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        _: OptionalInt<Self>,
        contexts: Contexts,
        heads: usize,
        scale: f64,
    ) -> FloatTensor<Self> {
        if suits(&[&query, &keys, &values]) {
            cached::cached_attention(query, keys, values, &contexts, heads, scale as f32)
        } else {
            definitions::cached::forward::<Self>(query, keys, values, &contexts, heads, scale)
        }
    }

    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let suited = suits(&[&parameter, &gradient, &moment_1, &moment_2]);
        let moments = [moment_1, moment_2];
        let [parameter, moment_1, moment_2] = if suited {
            optimizer::adamw(parameter, gradient, moments, step)
        } else {
            definitions::optimizer::adamw::<Self>(parameter, gradient, moments, step)
        };
        (parameter, moment_1, moment_2)
    }

    fn sum_of_squares(
        first: FloatTensor<Self>,
        second: Optional<Self>,
        third: Optional<Self>,
        fourth: Optional<Self>,
        fifth: Optional<Self>,
        before: Optional<Self>,
    ) -> FloatTensor<Self> {
        let others = [second, third, fourth, fifth].into_iter();
        let mut tensors = vec![first];
        tensors.extend(others.filter_map(Optional::into_option));
        let before = before.into_option();
        if tensors.iter().chain(&before).all(|tensor| suits(&[tensor])) {
            return optimizer::sum_of_squares(tensors, before);
        }
        let first = tensors.remove(0);
        definitions::squares::sum_of_squares::<Self>(tensors, first, before)
    }

    fn scaled(x: FloatTensor<Self>, factor: f64) -> FloatTensor<Self> {
        if suits(&[&x]) {
            optimizer::scaled(x, factor as f32)
        } else {
            Self::float_mul_scalar(x, Scalar::from(factor))
        }
    }
}

#[cfg(test)]
mod testing {
    use proptest::prelude::*;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// Uniform from `-size` to `size`.
    pub(super) fn random<const D: usize>(shape: [usize; D], size: f32, seed: u64) -> FlexTensor {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = shape.iter().product();
        let value = |_| (2.0 * rng.random::<f32>() - 1.0) * size;
        tensor((0..count).map(value).collect(), Shape::from(shape))
    }

    /// Within 1e-5 of the largest element.
    pub(super) fn close(found: &FlexTensor, expected: &FlexTensor) -> Result<(), TestCaseError> {
        prop_assert_eq!(found.shape(), expected.shape());
        let expected = contiguous(expected.clone());
        let (found, expected) = (values(found), values(&expected));
        let size = expected.iter().fold(1e-3f32, |a, b| a.max(b.abs()));
        for (found, expected) in found.iter().zip(expected) {
            prop_assert!(
                (found - expected).abs() <= 1e-5 * size,
                "{} and {}",
                found,
                expected
            );
        }
        Ok(())
    }
}
