//! [`MtLoraBackend::normalize_rows`] on an autodiff backend. Only `x` is saved; mean and variance are computed again.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::MtLoraBackend;

#[derive(Debug)]
struct NormalizeRows;

/// Parents: `x`, `gamma`, `beta`.
impl<B: MtLoraBackend> Backward<B, 3> for NormalizeRows {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, gamma, epsilon) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let [x_node, gamma_node, beta_node] = ops.parents;
        let wanted = [gamma_node.is_some(), beta_node.is_some()];
        let found = parameter_gradients::<B>(wanted, &x, &dy, epsilon);
        for (node, gradient) in [gamma_node, beta_node].into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
        if let Some(node) = x_node {
            let dx = B::normalize_rows_backward(x, gamma, dy, epsilon);
            grads.register::<B>(node.id, dx);
        }
    }
}

/// The gradients of `gamma` and `beta`, as far as they are wanted.
pub(super) fn parameter_gradients<B: MtLoraBackend>(
    [gamma, beta]: [bool; 2],
    x: &FloatTensor<B>,
    dy: &FloatTensor<B>,
    epsilon: f64,
) -> [Option<FloatTensor<B>>; 2] {
    let d_beta = beta.then(|| B::sum_rows(dy.clone()));
    let d_gamma = gamma.then(|| B::normalize_rows_gamma_backward(x.clone(), dy.clone(), epsilon));
    [d_gamma, d_beta]
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    gamma: FloatTensor<Autodiff<B, C>>,
    beta: FloatTensor<Autodiff<B, C>>,
    epsilon: f64,
) -> FloatTensor<Autodiff<B, C>> {
    let (x, x_node) = x.into_parts();
    let (gamma, gamma_node) = gamma.into_parts();
    let (beta, beta_node) = beta.into_parts();
    match NormalizeRows
        .prepare::<C>([x_node, gamma_node, beta_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let y = B::normalize_rows(x.clone(), gamma.clone(), beta, epsilon);
            prep.finish((x, gamma, epsilon), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::normalize_rows(x, gamma, beta, epsilon)),
    }
}
