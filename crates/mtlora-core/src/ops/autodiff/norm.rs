//! [`MtLoraBackend::normalize_rows`] on an autodiff backend. Only `x` is saved; mean and variance are computed again.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::Shape;

use crate::ops::MtLoraBackend;
use crate::ops::definitions::norm::normalised;

#[derive(Debug)]
struct NormalizeRows;

/// Parents: `x`, `gamma`, `beta`.
impl<B: MtLoraBackend> Backward<B, 3> for NormalizeRows {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, gamma, epsilon) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let width = Shape::from([gamma.shape()[0]]);
        let over_rows = |tensor| B::float_reshape(B::float_sum_dim(tensor, 0), width.clone());
        let [x_node, gamma_node, beta_node] = ops.parents;
        if let Some(node) = beta_node {
            grads.register::<B>(node.id, over_rows(dy.clone()));
        }
        if let Some(node) = gamma_node {
            let (h, _) = normalised::<B>(x.clone(), epsilon);
            grads.register::<B>(node.id, over_rows(B::float_mul(h, dy.clone())));
        }
        if let Some(node) = x_node {
            let dx = B::normalize_rows_backward(x, gamma, dy, epsilon);
            grads.register::<B>(node.id, dx);
        }
    }
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
