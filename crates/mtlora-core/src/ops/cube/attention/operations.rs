//! Attention's operations: by the kernels, or by the definition where these do not serve, that is with a mask that was drawn, without
//! offsets on the device, or where [`suits`] says no.

use burn::backend::TensorMetadata;
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::{Forward, Projections, backward_of_fused, backward_of_separate, forward, suits};
use crate::ops::cube::activation_dtype::{is_bf16_in_words, widened_projections};
use crate::ops::definitions::activation_dtype::restored;
use crate::ops::definitions::attention::{
    self, AttentionConstantsMetadata, AttentionForwardMetadata, Inputs,
};
use crate::ops::optional::OptionalMetadata;
use crate::ops::{AttentionConstants, AttentionForward, AttentionLayout, Optional, OptionalInt};

/// The offsets, if the kernels serve these arguments.
fn offsets(
    projections: &Projections,
    constants: &AttentionConstants<CubeBackend>,
    layout: &AttentionLayout,
) -> Option<CubeTensor> {
    match (&constants.keep, &constants.offsets) {
        (Optional::Absent, OptionalInt::Given(offsets)) if suits(projections, layout) => {
            Some(offsets.clone())
        }
        _ => None,
    }
}

/// The definition's arguments.
fn inputs(
    projections: Projections,
    constants: AttentionConstants<CubeBackend>,
) -> Inputs<CubeTensor> {
    let [query, key, value] = match projections {
        Projections::Separate(parts) => parts,
        Projections::Fused(fused) => attention::parts::<CubeBackend>(fused),
    };
    Inputs::new(query, key, value, constants.keep.into_option())
}

/// [`crate::ops::MtLoraBackend::segment_attention_and_log_sum_exp`], and the fused form.
pub(in crate::ops::cube) fn output_and_log_sum_exp(
    projections: Projections,
    constants: AttentionConstants<CubeBackend>,
    layout: &AttentionLayout,
) -> (CubeTensor, CubeTensor) {
    if let Some(offsets) = offsets(&projections, &constants, layout) {
        let Forward {
            output,
            log_sum_exp,
        } = forward(projections, offsets, layout);
        return (output, log_sum_exp);
    }
    let output = attention::forward::<CubeBackend>(inputs(projections, constants), layout);
    // Fusion has been promised a tensor. Nobody reads it.
    let shape = Shape::from([layout.offsets.tokens(), layout.heads]);
    let unread = CubeBackend::float_empty(shape, &output.device(), DType::F32.into());
    (output, unread)
}

/// What a kernel of the forward pass has left.
fn left(forward: AttentionForward<CubeBackend>) -> Option<Forward> {
    match forward {
        AttentionForward::Kept {
            output,
            log_sum_exp,
        } => Some(Forward {
            output,
            log_sum_exp,
        }),
        AttentionForward::Absent => None,
    }
}

/// [`crate::ops::MtLoraBackend::segment_attention_backward`].
pub(in crate::ops::cube) fn gradients(
    kept: [CubeTensor; 3],
    constants: AttentionConstants<CubeBackend>,
    forward: AttentionForward<CubeBackend>,
    dy: CubeTensor,
    layout: &AttentionLayout,
) -> [CubeTensor; 3] {
    let parts = match kept.iter().all(is_bf16_in_words) && dy.dtype() == DType::F32 {
        true => widened_projections(&kept),
        false => kept.map(|kept| restored::<CubeBackend>(kept, &dy)),
    };
    let projections = Projections::Separate(parts.clone());
    match offsets(&projections, &constants, layout) {
        Some(offsets) if dy.dtype() == DType::F32 => {
            backward_of_separate(parts, offsets, left(forward), dy, layout)
        }
        _ => attention::backward::<CubeBackend>(&inputs(projections, constants), dy, layout),
    }
}

/// [`crate::ops::MtLoraBackend::fused_segment_attention_backward`].
pub(in crate::ops::cube) fn fused_gradient(
    kept: CubeTensor,
    constants: AttentionConstants<CubeBackend>,
    forward: AttentionForward<CubeBackend>,
    dy: CubeTensor,
    layout: &AttentionLayout,
) -> CubeTensor {
    let fused = restored::<CubeBackend>(kept, &dy);
    let projections = Projections::Fused(fused.clone());
    match offsets(&projections, &constants, layout) {
        Some(offsets) if dy.dtype() == DType::F32 => {
            backward_of_fused(fused, offsets, left(forward), dy, layout)
        }
        _ => {
            let inputs = inputs(projections, constants);
            let gradients = attention::backward::<CubeBackend>(&inputs, dy, layout);
            CubeBackend::float_cat(gradients.to_vec(), 1)
        }
    }
}

/// The log-sum-exp of an output.
fn log_sum_exp_of(output: &TensorSpec, layout: &AttentionLayout) -> OptionalMetadata {
    let shape = Shape::from([output.shape[0], layout.heads]);
    OptionalMetadata::Given(TensorSpec::new(shape, DType::F32))
}

/// What [`crate::ops::MtLoraBackend::segment_attention_and_log_sum_exp`] returns, for fusion.
pub(in crate::ops) fn attention_and_log_sum_exp(
    query: &TensorSpec,
    _key: &TensorSpec,
    _value: &TensorSpec,
    _constants: &AttentionConstantsMetadata,
    layout: &AttentionLayout,
) -> (TensorSpec, OptionalMetadata) {
    (query.clone(), log_sum_exp_of(query, layout))
}

/// The same of the fused form.
pub(in crate::ops) fn fused_attention_and_log_sum_exp(
    fused: &TensorSpec,
    _constants: &AttentionConstantsMetadata,
    layout: &AttentionLayout,
) -> (TensorSpec, OptionalMetadata) {
    let output = TensorSpec::new(attention::output_shape(&fused.shape), fused.dtype);
    let log_sum_exp = log_sum_exp_of(&output, layout);
    (output, log_sum_exp)
}

/// What [`crate::ops::MtLoraBackend::segment_attention_backward`] returns, for fusion: the shapes of query, key and value, which may
/// have been kept in another precision than the gradient's.
pub(in crate::ops) fn attention_gradients(
    query: &TensorSpec,
    key: &TensorSpec,
    value: &TensorSpec,
    _constants: &AttentionConstantsMetadata,
    _forward: &AttentionForwardMetadata,
    dy: &TensorSpec,
    _layout: &AttentionLayout,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let of = |like: &TensorSpec| TensorSpec::new(like.shape.clone(), dy.dtype);
    (of(query), of(key), of(value))
}
