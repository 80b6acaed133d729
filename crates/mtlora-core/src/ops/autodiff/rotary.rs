//! [`MtLoraBackend::rotate_heads`] on an autodiff backend: the backward pass turns back, and needs no input.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::MtLoraBackend;

#[derive(Debug)]
struct RotateHeads;

impl<B: MtLoraBackend> Backward<B, 1> for RotateHeads {
    /// Cosines and sines.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [cos, sin] = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(x)] = ops.parents {
            grads.register::<B>(x.id, B::rotate_heads(dy, cos, B::float_neg(sin)));
        }
    }
}

/// The operation on an autodiff backend. Cosines and sines are constants.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    cos: FloatTensor<Autodiff<B, C>>,
    sin: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let (x, node) = x.into_parts();
    let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
    let y = B::rotate_heads(x, cos.clone(), sin.clone());
    match RotateHeads.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish([cos, sin], y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
