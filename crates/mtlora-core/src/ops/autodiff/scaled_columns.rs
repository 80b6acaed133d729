//! [`MtLoraBackend::scale_columns`] on an autodiff backend.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::tracked::node_or_constant;
use crate::ops::MtLoraBackend;

#[derive(Debug)]
struct ScaledColumns;

/// Parents: `x`, the factors, `bias`. The state is `x` and the factors.
impl<B: MtLoraBackend> Backward<B, 3> for ScaledColumns {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, factors] = ops.state;
        let [x_node, factors_node, bias_node] = ops.parents;
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::sum_rows(dy.clone()));
        }
        let (dx, d_factors) = B::scale_columns_backward(x, factors, dy);
        for (node, gradient) in [(x_node, dx), (factors_node, d_factors)] {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    factors: FloatTensor<Autodiff<B, C>>,
    bias: Option<FloatTensor<Autodiff<B, C>>>,
) -> FloatTensor<Autodiff<B, C>> {
    let bias_node = node_or_constant::<B, C>(bias.as_ref(), &factors);
    let (x, x_node) = x.into_parts();
    let (factors, factors_node) = factors.into_parts();
    let bias = bias.map(|bias| bias.into_primitive()).into();
    match ScaledColumns
        .prepare::<C>([x_node, factors_node, bias_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let y = B::scale_columns(x.clone(), factors.clone(), bias);
            prep.finish([x, factors], y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::scale_columns(x, factors, bias)),
    }
}
