//! Nodes of the autodiff graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend};

#[derive(Debug)]
struct Probe;

impl<B: Backend> Backward<B, 1> for Probe {
    type State = ();

    fn backward(self, _: Ops<(), 1>, _: &mut Gradients, _: &mut Checkpointer) {}
}

/// Whether the backward pass needs a gradient for the node. It asks the graph as an operation with this one parent
/// would, and registers nothing.
pub(super) fn is_tracked<B: Backend, C: CheckpointStrategy>(node: NodeGuard) -> bool {
    let prepared = Backward::<B, 1>::prepare::<C>(Probe, [node]);
    matches!(prepared.compute_bound().stateful(), OpsKind::Tracked(_))
}

/// The tensor's node. An absent tensor has the node of a constant, which gets no gradient.
pub(super) fn node_or_constant<B: Backend, C: CheckpointStrategy>(
    tensor: Option<&FloatTensor<Autodiff<B, C>>>,
    like: &FloatTensor<Autodiff<B, C>>,
) -> NodeGuard {
    match tensor {
        Some(tensor) => tensor.node(),
        None => Autodiff::<B, C>::from_inner(like.primitive().clone()).node(),
    }
}
