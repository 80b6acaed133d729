//! The operations on an autodiff backend: what each saves, and its backward pass.

mod adapted_linear;
mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod gelu;
mod linear;
mod norm;
mod relative_attention;
mod residual_norm;
mod rms_norm;
mod rotary;
mod scaled_columns;
mod swiglu;
mod tracked;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor, QuantizedTensor};
use burn::backend::{Autodiff, AutodiffBackend};

use super::definitions::linear as definition;
use super::{
    ActivationDtype, AttentionConstants, AttentionLayout, Gelu, MtLoraBackend, Optional,
    RelativeTables, SeededDropout, Weight,
};

impl<B: MtLoraBackend, C: CheckpointStrategy> MtLoraBackend for Autodiff<B, C> {
    fn adapted_linear(
        x: FloatTensor<Self>,
        dropped: Optional<Self>,
        weight: Weight<Self>,
        bias: Optional<Self>,
        a: FloatTensor<Self>,
        t: Optional<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        adapted_linear::track::<B, C>(adapted_linear::Inputs {
            x,
            dropped: dropped.into_option(),
            weight,
            bias: bias.into_option(),
            a,
            t: t.into_option(),
            b,
            scale,
        })
    }

    fn mixed_linear(
        x: FloatTensor<Self>,
        weight: Weight<Self>,
        bias: Optional<Self>,
    ) -> FloatTensor<Self> {
        linear::track::<B, C>(x, weight, bias.into_option())
    }

    /// Burn's own operations where the weight may train.
    fn mixed_linear_backward(dy: FloatTensor<Self>, weight: Weight<Self>) -> FloatTensor<Self> {
        match weight {
            Weight::Quantized(weight) => linear::track_backward::<B, C>(dy, weight),
            Weight::Float(_) => definition::backward::<Self>(dy, weight),
        }
    }

    fn select_rows(table: Weight<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        match table {
            Weight::Float(table) => embedding::track::<B, C>(table, ids),
            // It does not train.
            Weight::Quantized(table) => {
                Self::from_inner(B::select_rows(Weight::Quantized(table), ids))
            }
        }
    }

    fn packed_product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        bias: Optional<Self>,
        turned: bool,
    ) -> FloatTensor<Self> {
        match turned {
            false => linear::track::<B, C>(x, Weight::Quantized(weight), bias.into_option()),
            true => linear::track_backward::<B, C>(x, weight),
        }
    }

    /// A constant.
    fn unpack_words(weight: QuantizedTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::unpack_words(weight))
    }

    /// A constant.
    fn packed_rows(table: QuantizedTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::packed_rows(table, ids))
    }

    /// A constant.
    fn adapted_squared_norms(
        weight: Weight<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let (a, b) = (a.into_primitive(), b.into_primitive());
        Self::from_inner(B::adapted_squared_norms(inner(weight), a, b, scale))
    }

    fn scale_columns(
        x: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        bias: Optional<Self>,
    ) -> FloatTensor<Self> {
        scaled_columns::track::<B, C>(x, factors, bias.into_option())
    }

    fn segment_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        attention::track::<B, C>([query, key, value], constants, layout)
    }

    fn fused_segment_attention(
        fused: FloatTensor<Self>,
        constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        attention::track_fused::<B, C>(fused, constants, layout)
    }

    fn relative_segment_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        tables: RelativeTables<Self>,
        constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        relative_attention::track::<B, C>([query, key, value], tables, constants, layout)
    }

    fn activate_gelu(
        x: FloatTensor<Self>,
        form: Gelu,
        saved: ActivationDtype,
    ) -> FloatTensor<Self> {
        gelu::track::<B, C>(x, form, saved)
    }

    fn normalize_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        norm::track::<B, C>(x, gamma, beta, epsilon)
    }

    /// The sum is constant: only the output has a gradient.
    fn add_and_normalize_rows(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        dropout: Option<SeededDropout>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        residual_norm::track::<B, C>([x, residual], gamma, beta, dropout, epsilon)
    }

    fn rms_normalize_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        rms_norm::track::<B, C>(x, gamma, epsilon)
    }

    fn rotate_heads(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        rotary::track::<B, C>(x, cos, sin)
    }

    fn swiglu(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        saved: ActivationDtype,
    ) -> FloatTensor<Self> {
        swiglu::track::<B, C>(gate, up, saved)
    }

    fn tied_cross_entropy(
        hidden: FloatTensor<Self>,
        embedding: Weight<Self>,
        targets: IntTensor<Self>,
        smoothing: f64,
    ) -> FloatTensor<Self> {
        cross_entropy::track::<B, C>(hidden, embedding, targets, smoothing)
    }

    fn seeded_dropout(x: FloatTensor<Self>, dropout: SeededDropout) -> FloatTensor<Self> {
        dropout::track::<B, C>(x, dropout)
    }
}

/// The weight without the autodiff backend's wrapping.
fn inner<B: MtLoraBackend, C: CheckpointStrategy>(weight: Weight<Autodiff<B, C>>) -> Weight<B> {
    match weight {
        Weight::Float(tensor) => Weight::Float(tensor.into_primitive()),
        Weight::Quantized(tensor) => Weight::Quantized(tensor),
    }
}
