//! [`MtLoraBackend::select_rows`] on an autodiff backend.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata};

use crate::ops::{MtLoraBackend, Weight};

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct LookedUp<B: Backend> {
    ids: IntTensor<B>,
    /// Rows of the table.
    rows: usize,
}

#[derive(Debug)]
struct SelectRows;

/// Parent: the table.
impl<B: MtLoraBackend> Backward<B, 1> for SelectRows {
    type State = LookedUp<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let LookedUp { ids, rows } = ops.state;
        if let [Some(table)] = ops.parents {
            grads.register::<B>(table.id, B::select_rows_backward(dy, ids, rows));
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    table: FloatTensor<Autodiff<B, C>>,
    ids: IntTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    let (table, table_node) = table.into_parts();
    match SelectRows
        .prepare::<C>([table_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let rows = table.shape()[0];
            let y = B::select_rows(Weight::Float(table), ids.clone());
            prep.finish(LookedUp { ids, rows }, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::select_rows(Weight::Float(table), ids)),
    }
}
