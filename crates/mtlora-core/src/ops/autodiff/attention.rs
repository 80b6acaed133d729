//! [`MtLoraBackend::segment_attention`] and its fused form on an autodiff backend.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use super::kept;
use crate::ops::{
    ActivationDtype, AttentionConstants, AttentionForward, AttentionLayout, MtLoraBackend,
    Optional, OptionalInt,
};

/// The constants without the autodiff backend's wrapping.
pub(super) fn inner<B: MtLoraBackend, C: CheckpointStrategy>(
    constants: AttentionConstants<Autodiff<B, C>>,
) -> AttentionConstants<B> {
    let keep = constants.keep.into_option();
    AttentionConstants {
        keep: Optional::from(keep.map(|tensor| tensor.into_primitive())),
        offsets: match constants.offsets {
            OptionalInt::Given(offsets) => OptionalInt::Given(offsets),
            OptionalInt::Absent => OptionalInt::Absent,
        },
    }
}

/// What the forward pass leaves for the backward pass.
fn left<B: Backend>(output: &FloatTensor<B>, log_sum_exp: Optional<B>) -> AttentionForward<B> {
    match log_sum_exp {
        Optional::Given(log_sum_exp) => AttentionForward::Kept {
            output: output.clone(),
            log_sum_exp,
        },
        Optional::Absent => AttentionForward::Absent,
    }
}

/// What the backward pass reads.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    /// Query, key and value.
    inputs: [FloatTensor<B>; 3],
    constants: AttentionConstants<B>,
    forward: AttentionForward<B>,
    layout: AttentionLayout,
}

#[derive(Debug)]
struct SegmentAttention;

/// Parents: `query`, `key`, `value`.
impl<B: MtLoraBackend> Backward<B, 3> for SegmentAttention {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let saved = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let [query, key, value] = saved.inputs;
        let (constants, forward, layout) = (saved.constants, saved.forward, saved.layout);
        let (dq, dk, dv) =
            B::segment_attention_backward(query, key, value, constants, forward, dy, layout);
        for (parent, gradient) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<B, C>>; 3],
    constants: AttentionConstants<Autodiff<B, C>>,
    layout: AttentionLayout,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|tensor| tensor.node());
    let inputs = inputs.map(|tensor| tensor.into_primitive());
    let kept = inputs
        .each_ref()
        .map(|tensor| kept::<B>(tensor, layout.saved));
    let [query, key, value] = inputs;
    let constants = inner(constants);
    let (output, log_sum_exp) = match layout.saved {
        ActivationDtype::F32 => B::segment_attention_and_log_sum_exp(
            query,
            key,
            value,
            constants.clone(),
            layout.clone(),
        ),
        // The backward pass reads rounded inputs, whose scores have another sum.
        ActivationDtype::Bf16 => (
            B::segment_attention(query, key, value, constants.clone(), layout.clone()),
            Optional::Absent,
        ),
    };
    let saved = Saved {
        inputs: kept,
        constants,
        forward: left(&output, log_sum_exp),
        layout,
    };
    match SegmentAttention
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(saved, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

#[derive(Debug)]
struct FusedSegmentAttention;

/// What the fused operation's backward pass reads.
#[derive(Clone, Debug)]
struct SavedFused<B: Backend> {
    fused: FloatTensor<B>,
    constants: AttentionConstants<B>,
    forward: AttentionForward<B>,
    layout: AttentionLayout,
}

/// Parent: `fused`.
impl<B: MtLoraBackend> Backward<B, 1> for FusedSegmentAttention {
    type State = SavedFused<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let saved = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let gradient = B::fused_segment_attention_backward(
                saved.fused,
                saved.constants,
                saved.forward,
                dy,
                saved.layout,
            );
            grads.register::<B>(node.id, gradient);
        }
    }
}

/// The fused operation on an autodiff backend.
pub(super) fn track_fused<B: MtLoraBackend, C: CheckpointStrategy>(
    fused: FloatTensor<Autodiff<B, C>>,
    constants: AttentionConstants<Autodiff<B, C>>,
    layout: AttentionLayout,
) -> FloatTensor<Autodiff<B, C>> {
    let (fused, node) = fused.into_parts();
    let kept = kept::<B>(&fused, layout.saved);
    let constants = inner(constants);
    let (output, log_sum_exp) = match layout.saved {
        ActivationDtype::F32 => {
            B::fused_segment_attention_and_log_sum_exp(fused, constants.clone(), layout.clone())
        }
        ActivationDtype::Bf16 => (
            B::fused_segment_attention(fused, constants.clone(), layout.clone()),
            Optional::Absent,
        ),
    };
    let saved = SavedFused {
        fused: kept,
        constants,
        forward: left(&output, log_sum_exp),
        layout,
    };
    match FusedSegmentAttention
        .prepare::<C>([node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(saved, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}
