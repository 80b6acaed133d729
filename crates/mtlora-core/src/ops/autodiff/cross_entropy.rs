//! [`MtLoraBackend::tied_cross_entropy`] on an autodiff backend: the forward pass makes the gradients too.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::{Shape, Slice};

use super::inner;
use super::tracked::{is_tracked, node_or_constant};
use crate::ops::definitions::cross_entropy::{chunks, rows_of, total};
use crate::ops::{MtLoraBackend, Optional, Weight};

/// The sum of the losses, and the gradients that are wanted.
struct Pass<B: Backend> {
    loss: FloatTensor<B>,
    /// `[rows, hidden]`
    d_hidden: Option<FloatTensor<B>>,
    /// `[vocabulary, hidden]`
    d_embedding: Option<FloatTensor<B>>,
}

fn forward_and_gradients<B: MtLoraBackend>(
    hidden: FloatTensor<B>,
    embedding: Weight<B>,
    targets: IntTensor<B>,
    smoothing: f64,
    [wants_hidden, wants_embedding]: [bool; 2],
) -> Pass<B> {
    let sides = embedding.sides();
    let (mut losses, mut d_hidden, mut d_embedding) = (Vec::new(), Vec::new(), None);
    let capabilities = B::capabilities(&hidden.device());
    for range in chunks(hidden.shape()[0], sides[0], capabilities) {
        let rows = rows_of::<B>(&hidden, &range);
        let logits = B::mixed_linear_backward(rows.clone(), embedding.clone());
        let targets = B::int_slice(targets.clone(), &[Slice::from(range)]);
        let (loss, gradient) = B::cross_entropy_rows_and_gradients(logits, targets, smoothing);
        losses.push(B::float_sum(loss));
        if wants_hidden {
            d_hidden.push(B::mixed_linear(
                gradient.clone(),
                embedding.clone(),
                Optional::Absent,
            ));
        }
        if wants_embedding {
            d_embedding = Some(match d_embedding.take() {
                Some(sum) => B::add_matmul(sum, B::float_transpose(gradient), rows, 1.0),
                None => B::mixed_linear_weight_backward(gradient, rows),
            });
        }
    }
    // Without rows there are gradients, too.
    if wants_embedding && d_embedding.is_none() {
        d_embedding = Some(zeros_like::<B>(&hidden, sides));
    }
    let joined = match d_hidden.len() {
        0 => wants_hidden.then(|| zeros_like::<B>(&hidden, [0, sides[1]])),
        1 => d_hidden.pop(),
        _ => Some(B::float_cat(d_hidden, 0)),
    };
    Pass {
        loss: total::<B>(losses.into_iter(), &hidden),
        d_hidden: joined,
        d_embedding,
    }
}

/// Zeros on the tensor's device, in its precision.
fn zeros_like<B: Backend>(tensor: &FloatTensor<B>, sides: [usize; 2]) -> FloatTensor<B> {
    B::float_zeros(Shape::from(sides), &tensor.device(), tensor.dtype().into())
}

#[derive(Debug)]
struct TiedCrossEntropy;

/// Parents: `hidden`, `embedding` (never where it is quantized). The state is their gradients for an upstream gradient of 1.
impl<B: Backend> Backward<B, 2> for TiedCrossEntropy {
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let factor = B::float_reshape(upstream, Shape::from([1, 1]));
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(node.id, B::float_mul(gradient, factor.clone()));
            }
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    hidden: FloatTensor<Autodiff<B, C>>,
    embedding: Weight<Autodiff<B, C>>,
    targets: IntTensor<B>,
    smoothing: f64,
) -> FloatTensor<Autodiff<B, C>> {
    let may_train = match &embedding {
        Weight::Float(embedding) => Some(embedding),
        Weight::Quantized(_) => None,
    };
    let wanted = [Some(&hidden), may_train]
        .map(|tensor| tensor.is_some_and(|tensor| is_tracked::<B, C>(tensor.node())));
    let nodes = [hidden.node(), node_or_constant::<B, C>(may_train, &hidden)];
    let (hidden, embedding) = (hidden.into_primitive(), inner(embedding));
    match TiedCrossEntropy
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let pass = forward_and_gradients::<B>(hidden, embedding, targets, smoothing, wanted);
            prep.finish([pass.d_hidden, pass.d_embedding], pass.loss)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::tied_cross_entropy(hidden, embedding, targets, smoothing))
        }
    }
}
