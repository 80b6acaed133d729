//! [`MtLoraBackend::rms_normalize_rows`] on an autodiff backend. Only `x` is saved; the root mean square is computed again.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::MtLoraBackend;

#[derive(Debug)]
struct RmsNormalizeRows;

/// Parents: `x`, `gamma`.
impl<B: MtLoraBackend> Backward<B, 2> for RmsNormalizeRows {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, gamma, epsilon) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let [x_node, gamma_node] = ops.parents;
        if let Some(node) = gamma_node {
            let d_gamma = B::rms_normalize_rows_gamma_backward(x.clone(), dy.clone(), epsilon);
            grads.register::<B>(node.id, d_gamma);
        }
        if let Some(node) = x_node {
            let dx = B::rms_normalize_rows_backward(x, gamma, dy, epsilon);
            grads.register::<B>(node.id, dx);
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    gamma: FloatTensor<Autodiff<B, C>>,
    epsilon: f64,
) -> FloatTensor<Autodiff<B, C>> {
    let (x, x_node) = x.into_parts();
    let (gamma, gamma_node) = gamma.into_parts();
    match RmsNormalizeRows
        .prepare::<C>([x_node, gamma_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let y = B::rms_normalize_rows(x.clone(), gamma.clone(), epsilon);
            prep.finish((x, gamma, epsilon), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::rms_normalize_rows(x, gamma, epsilon)),
    }
}
