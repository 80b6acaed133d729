//! [`MtLoraBackend::activate_gelu`] on an autodiff backend. Only `x` is saved.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::{ActivationDtype, Gelu, MtLoraBackend};

#[derive(Debug)]
struct GeluStep;

/// Parent: `x`.
impl<B: MtLoraBackend> Backward<B, 1> for GeluStep {
    type State = (FloatTensor<B>, Gelu);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, form) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::activate_gelu_backward(x, dy, form));
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    form: Gelu,
    saved: ActivationDtype,
) -> FloatTensor<Autodiff<B, C>> {
    let (x, node) = x.into_parts();
    match GeluStep.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (y, kept) = match saved {
                ActivationDtype::F32 => (B::activate_gelu(x.clone(), form, saved), x),
                ActivationDtype::Bf16 => B::activate_gelu_and_rounded(x, form),
            };
            prep.finish((kept, form), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::activate_gelu(x, form, saved)),
    }
}
