//! Layer normalisation of rows (arXiv 1607.06450).
//!
//! With `h = (x - mean) / sqrt(var + eps)`, `g = dy * gamma`:
//!
//! ```text
//! y = h * gamma + beta
//! dx = (g - mean(g) - h * mean(g * h)) / sqrt(var + eps)
//! dgamma = sum over rows of dy * h     dbeta = sum over rows of dy
//! ```
//!
//! Only `x` is saved; mean and variance are made anew.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Scalar, TensorMetadata};
use burn::tensor::Shape;

use super::MtLoraBackend;

/// `[width]` as a row that broadcasts over `[rows, width]`.
fn row<B: Backend>(vector: FloatTensor<B>) -> FloatTensor<B> {
    let width = vector.shape()[0];
    B::float_reshape(vector, Shape::from([1, width]))
}

/// `h`, and `1 / sqrt(var + eps)` as `[rows, 1]`.
fn normalised<B: Backend>(x: FloatTensor<B>, epsilon: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let mean = B::float_mean_dim(x.clone(), 1);
    let centred = B::float_sub(x, mean);
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let deviation = B::float_sqrt(B::float_add_scalar(variance, Scalar::from(epsilon)));
    let inverse = B::float_recip(deviation);
    (B::float_mul(centred, inverse.clone()), inverse)
}

pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let (h, _) = normalised::<B>(x, epsilon);
    B::float_add(B::float_mul(h, row::<B>(gamma)), row::<B>(beta))
}

pub(super) fn backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    dy: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let (h, inverse) = normalised::<B>(x, epsilon);
    let g = B::float_mul(dy, row::<B>(gamma));
    let mean = B::float_mean_dim(g.clone(), 1);
    let along = B::float_mean_dim(B::float_mul(g.clone(), h.clone()), 1);
    let rest = B::float_sub(B::float_sub(g, mean), B::float_mul(h, along));
    B::float_mul(rest, inverse)
}

#[derive(Debug)]
struct NormalizeRows;

/// Parents: `x`, `gamma`, `beta`.
impl<B: Backend + MtLoraBackend> Backward<B, 3> for NormalizeRows {
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
pub(super) fn track<B: Backend + MtLoraBackend, C: CheckpointStrategy>(
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
