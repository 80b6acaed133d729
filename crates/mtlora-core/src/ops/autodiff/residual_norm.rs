//! [`MtLoraBackend::add_and_normalize_rows`] on an autodiff backend. Only the sum is saved.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend};

use super::norm::parameter_gradients;
use crate::ops::{MtLoraBackend, SeededDropout};

#[derive(Debug)]
struct AddAndNormalizeRows;

/// What the backward pass reads.
#[derive(Clone, Debug)]
struct Saved<F> {
    sum: F,
    gamma: F,
    dropout: Option<SeededDropout>,
    epsilon: f64,
}

/// Parents: `x`, `residual`, `gamma`, `beta`.
impl<B: MtLoraBackend> Backward<B, 4> for AddAndNormalizeRows {
    type State = Saved<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Saved {
            sum,
            gamma,
            dropout,
            epsilon,
        } = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let [x, residual, gamma_node, beta_node] = ops.parents;
        let wanted = [gamma_node.is_some(), beta_node.is_some()];
        let found = parameter_gradients::<B>(wanted, &sum, &dy, epsilon);
        for (node, gradient) in [gamma_node, beta_node].into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
        match (x, residual) {
            (Some(x), Some(residual)) => {
                let (dx, dr) = B::add_and_normalize_rows_backward(sum, gamma, dy, dropout, epsilon);
                grads.register::<B>(x.id, dx);
                grads.register::<B>(residual.id, dr);
            }
            (Some(x), None) => {
                let dsum = B::normalize_rows_backward(sum, gamma, dy, epsilon);
                let dx = match dropout {
                    Some(dropout) => B::seeded_dropout(dsum, dropout),
                    None => dsum,
                };
                grads.register::<B>(x.id, dx);
            }
            (None, Some(residual)) => {
                let dsum = B::normalize_rows_backward(sum, gamma, dy, epsilon);
                grads.register::<B>(residual.id, dsum);
            }
            (None, None) => {}
        }
    }
}

/// A tensor on an autodiff backend.
type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

/// The operation on an autodiff backend, and the sum as a constant.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    [x, residual]: [Tracked<B, C>; 2],
    gamma: Tracked<B, C>,
    beta: Tracked<B, C>,
    dropout: Option<SeededDropout>,
    epsilon: f64,
) -> (Tracked<B, C>, Tracked<B, C>) {
    let (x, x_node) = x.into_parts();
    let (residual, residual_node) = residual.into_parts();
    let (gamma, gamma_node) = gamma.into_parts();
    let (beta, beta_node) = beta.into_parts();
    let (y, sum) = B::add_and_normalize_rows(x, residual, gamma.clone(), beta, dropout, epsilon);
    let nodes = [x_node, residual_node, gamma_node, beta_node];
    let constant = Autodiff::<B, C>::from_inner(sum.clone());
    let prepared = AddAndNormalizeRows.prepare::<C>(nodes);
    let y = match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let saved = Saved {
                sum,
                gamma,
                dropout,
                epsilon,
            };
            prep.finish(saved, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(y),
    };
    (y, constant)
}
