//! [`MtLoraBackend::seeded_dropout`] on an autodiff backend: it is linear, so that the backward pass is the same operation.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::{MtLoraBackend, SeededDropout};

#[derive(Debug)]
struct Dropout;

impl<B: MtLoraBackend> Backward<B, 1> for Dropout {
    type State = SeededDropout;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(x)] = ops.parents {
            grads.register::<B>(x.id, B::seeded_dropout(dy, ops.state));
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    dropout: SeededDropout,
) -> FloatTensor<Autodiff<B, C>> {
    let (x, node) = x.into_parts();
    let y = B::seeded_dropout(x, dropout);
    match Dropout.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(dropout, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
