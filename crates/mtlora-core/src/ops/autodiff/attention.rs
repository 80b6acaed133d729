//! [`MtLoraBackend::segment_attention`] and its fused form on an autodiff backend.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::kept;
use crate::ops::definitions::attention::{AttentionLayout, Inputs};
use crate::ops::{MtLoraBackend, Optional};

#[derive(Debug)]
struct SegmentAttention;

/// Parents: `query`, `key`, `value`.
impl<B: MtLoraBackend> Backward<B, 3> for SegmentAttention {
    type State = (Inputs<FloatTensor<B>>, AttentionLayout);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (inputs, layout) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let (dq, dk, dv) = B::segment_attention_backward(
            inputs.query,
            inputs.key,
            inputs.value,
            inputs.keep.into(),
            dy,
            layout,
        );
        for (parent, gradient) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// The operation on an autodiff backend. `keep` is a constant.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    inputs: Inputs<FloatTensor<Autodiff<B, C>>>,
    layout: AttentionLayout,
) -> FloatTensor<Autodiff<B, C>> {
    let (query, query_node) = inputs.query.into_parts();
    let (key, key_node) = inputs.key.into_parts();
    let (value, value_node) = inputs.value.into_parts();
    let inner = Inputs {
        query,
        key,
        value,
        keep: inputs.keep.map(|tensor| tensor.into_primitive()),
    };
    let kept = |tensor: &FloatTensor<B>| kept::<B>(tensor, layout.saved);
    let saved = Inputs {
        query: kept(&inner.query),
        key: kept(&inner.key),
        value: kept(&inner.value),
        keep: inner.keep.clone(),
    };
    let output = B::segment_attention(
        inner.query,
        inner.key,
        inner.value,
        inner.keep.into(),
        layout.clone(),
    );
    match SegmentAttention
        .prepare::<C>([query_node, key_node, value_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((saved, layout), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

#[derive(Debug)]
struct FusedSegmentAttention;

/// What the fused operation's backward pass needs.
#[derive(Clone, Debug)]
struct SavedFused<T> {
    fused: T,
    keep: Option<T>,
    layout: AttentionLayout,
}

impl<B: MtLoraBackend> Backward<B, 1> for FusedSegmentAttention {
    type State = SavedFused<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let SavedFused {
            fused,
            keep,
            layout,
        } = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let gradient = B::fused_segment_attention_backward(fused, keep.into(), dy, layout);
            grads.register::<B>(node.id, gradient);
        }
    }
}

/// The fused operation on an autodiff backend. `keep` is a constant.
pub(super) fn track_fused<B: MtLoraBackend, C: CheckpointStrategy>(
    fused: FloatTensor<Autodiff<B, C>>,
    keep: Option<FloatTensor<Autodiff<B, C>>>,
    layout: AttentionLayout,
) -> FloatTensor<Autodiff<B, C>> {
    let (fused, node) = fused.into_parts();
    let keep = keep.map(|tensor| tensor.into_primitive());
    let given = Optional::from(keep.clone());
    let saved = kept::<B>(&fused, layout.saved);
    let output = B::fused_segment_attention(fused, given, layout.clone());
    match FusedSegmentAttention
        .prepare::<C>([node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(
            SavedFused {
                fused: saved,
                keep,
                layout,
            },
            output,
        ),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}
