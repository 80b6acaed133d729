//! [`MtLoraBackend::mixed_linear`] on an autodiff backend.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, QuantizedTensor};
use burn::backend::{Autodiff, Backend};

use super::inner;
use super::tracked::{is_tracked, node_or_constant};
use crate::ops::{MtLoraBackend, Optional, Weight};

/// What the backward pass needs; each shared with its owner.
#[derive(Clone, Debug)]
struct SavedInputs<B: Backend> {
    weight: Weight<B>,
    /// Where the weight trains.
    x: Option<FloatTensor<B>>,
}

#[derive(Debug)]
struct Linear;

/// Parents: `x`, the weight (never where it is quantized), `bias`.
impl<B: MtLoraBackend> Backward<B, 3> for Linear {
    type State = SavedInputs<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, weight, bias] = ops.parents;
        if let Some(bias) = bias {
            grads.register::<B>(bias.id, B::sum_rows(dy.clone()));
        }
        if let (Some(weight), Some(x)) = (weight, ops.state.x) {
            let dw = B::mixed_linear_weight_backward(x, dy.clone());
            grads.register::<B>(weight.id, dw);
        }
        if let Some(x) = x {
            grads.register::<B>(x.id, B::mixed_linear_backward(dy, ops.state.weight));
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: Weight<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
) -> FloatTensor<Autodiff<B, C>> {
    let kept = match &weight {
        Weight::Float(weight) => Some(weight),
        Weight::Quantized(_) => None,
    };
    let weight_trains = kept.is_some_and(|weight| is_tracked::<B, C>(weight.node()));
    let nodes = [
        x.node(),
        node_or_constant::<B, C>(kept, &x),
        node_or_constant::<B, C>(bias.as_ref(), &x),
    ];
    let weight = inner(weight);
    let x = x.into_primitive();
    let bias = bias.map(|bias| bias.into_primitive());
    let saved = SavedInputs {
        weight: weight.clone(),
        x: weight_trains.then(|| x.clone()),
    };
    let y = B::mixed_linear(x, weight, bias.into());
    match Linear.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(saved, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct LinearBackward;

/// Parent: `dy`. The state is the weight.
impl<B: MtLoraBackend> Backward<B, 1> for LinearBackward {
    type State = QuantizedTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(dy)] = ops.parents {
            let weight = Weight::Quantized(ops.state);
            let gradient = B::mixed_linear(gradient, weight, Optional::Absent);
            grads.register::<B>(dy.id, gradient);
        }
    }
}

/// [`MtLoraBackend::mixed_linear_backward`] on an autodiff backend, with a weight that does not train.
pub(super) fn track_backward<B: MtLoraBackend, C: CheckpointStrategy>(
    dy: FloatTensor<Autodiff<B, C>>,
    weight: QuantizedTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [dy.node()];
    let y = B::mixed_linear_backward(dy.into_primitive(), Weight::Quantized(weight.clone()));
    match LinearBackward
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(weight, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
