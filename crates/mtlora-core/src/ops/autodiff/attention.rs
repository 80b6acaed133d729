//! [`MtLoraBackend::segment_attention`] and its fused form on an autodiff backend.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};

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

/// Where attention's inputs are rounded to bfloat16, if they are kept in it for the backward pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InputRounding {
    /// Nowhere: they are kept as they are.
    Nowhere,
    /// The forward pass reads the exact inputs, and its kernel rounds them itself.
    InKernel,
    /// Before the forward pass, so that both passes read the same values.
    BeforeKernel,
}

impl InputRounding {
    pub(super) fn of<B: MtLoraBackend>(x: &FloatTensor<B>, layout: &AttentionLayout) -> Self {
        match layout.saved {
            ActivationDtype::F32 => Self::Nowhere,
            ActivationDtype::Bf16 if B::capabilities(&x.device()).rounds_attention => {
                Self::InKernel
            }
            ActivationDtype::Bf16 => Self::BeforeKernel,
        }
    }

    /// Whether both passes compute the same scores, so that the backward pass can read the forward pass' sums of them.
    fn has_same_scores(self) -> bool {
        self != Self::InKernel
    }

    /// An input as the forward pass reads it, and as it is kept.
    pub(super) fn apply<B: MtLoraBackend>(
        self,
        x: FloatTensor<B>,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        match self {
            Self::Nowhere => (x.clone(), x),
            Self::InKernel => (x.clone(), B::rounded(x)),
            Self::BeforeKernel => B::rounded_values(x),
        }
    }

    /// The same for query, key and value.
    pub(super) fn apply_to_projections<B: MtLoraBackend>(
        self,
        [query, key, value]: [FloatTensor<B>; 3],
    ) -> ([FloatTensor<B>; 3], [FloatTensor<B>; 3]) {
        if self == Self::BeforeKernel {
            let (read, kept) = B::rounded_projections(query, key, value);
            return (read.into(), kept.into());
        }
        let inputs = [query, key, value].map(|input| self.apply::<B>(input));
        let [(query, q), (key, k), (value, v)] = inputs;
        ([query, key, value], [q, k, v])
    }

    /// The same for tables of relative positions, as far as there are any.
    pub(super) fn apply_to_tables<B: MtLoraBackend>(
        self,
        tables: [Option<FloatTensor<B>>; 2],
    ) -> [[Option<FloatTensor<B>>; 2]; 2] {
        let [keys, queries] = tables.map(|table| match table {
            Some(table) => {
                let (read, kept) = self.apply::<B>(table);
                [Some(read), Some(kept)]
            }
            None => [None, None],
        });
        let ([keys, kept_keys], [queries, kept_queries]) = (keys, queries);
        [[keys, queries], [kept_keys, kept_queries]]
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
    let [query, key, value] = inputs.map(|tensor| tensor.into_primitive());
    let constants = inner(constants);
    let prepared = SegmentAttention.prepare::<C>(nodes);
    let prep = match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep,
        OpsKind::UnTracked(prep) => {
            return prep.finish(B::segment_attention(query, key, value, constants, layout));
        }
    };
    let rounding = InputRounding::of::<B>(&query, &layout);
    let ([query, key, value], kept) = rounding.apply_to_projections::<B>([query, key, value]);
    let (output, log_sum_exp) = {
        let (constants, layout) = (constants.clone(), layout.clone());
        if rounding.has_same_scores() {
            B::segment_attention_and_log_sum_exp(query, key, value, constants, layout)
        } else {
            let output = B::segment_attention(query, key, value, constants, layout);
            (output, Optional::Absent)
        }
    };
    let saved = Saved {
        inputs: kept,
        constants,
        forward: left(&output, log_sum_exp),
        layout,
    };
    prep.finish(saved, output)
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
    let constants = inner(constants);
    let prepared = FusedSegmentAttention.prepare::<C>([node]);
    let prep = match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep,
        OpsKind::UnTracked(prep) => {
            return prep.finish(B::fused_segment_attention(fused, constants, layout));
        }
    };
    let rounding = InputRounding::of::<B>(&fused, &layout);
    let (fused, kept) = rounding.apply::<B>(fused);
    let (output, log_sum_exp) = {
        let (constants, layout) = (constants.clone(), layout.clone());
        if rounding.has_same_scores() {
            B::fused_segment_attention_and_log_sum_exp(fused, constants, layout)
        } else {
            let output = B::fused_segment_attention(fused, constants, layout);
            (output, Optional::Absent)
        }
    };
    let saved = SavedFused {
        fused: kept,
        constants,
        forward: left(&output, log_sum_exp),
        layout,
    };
    prep.finish(saved, output)
}
