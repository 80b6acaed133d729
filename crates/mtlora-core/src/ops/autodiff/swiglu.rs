//! [`MtLoraBackend::swiglu`] on an autodiff backend. Both inputs are saved, and no product of them.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::{ActivationDtype, MtLoraBackend};

#[derive(Debug)]
struct SwiGlu;

/// Parents: `gate`, `up`.
impl<B: MtLoraBackend> Backward<B, 2> for SwiGlu {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [gate, up] = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let (d_gate, d_up) = B::swiglu_backward(gate, up, dy);
        for (parent, gradient) in ops.parents.into_iter().zip([d_gate, d_up]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    gate: FloatTensor<Autodiff<B, C>>,
    up: FloatTensor<Autodiff<B, C>>,
    saved: ActivationDtype,
) -> FloatTensor<Autodiff<B, C>> {
    let (gate, gate_node) = gate.into_parts();
    let (up, up_node) = up.into_parts();
    match SwiGlu
        .prepare::<C>([gate_node, up_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let (y, gate, up) = match saved {
                ActivationDtype::F32 => (B::swiglu(gate.clone(), up.clone(), saved), gate, up),
                ActivationDtype::Bf16 => B::swiglu_and_rounded(gate, up),
            };
            prep.finish([gate, up], y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::swiglu(gate, up, saved)),
    }
}
