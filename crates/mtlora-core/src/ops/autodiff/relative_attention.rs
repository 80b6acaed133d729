//! [`MtLoraBackend::relative_segment_attention`] on an autodiff backend.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use super::attention::{InputRounding, inner};
use super::tracked::node_or_constant;
use crate::ops::{AttentionConstants, AttentionLayout, MtLoraBackend, RelativeTables};

/// What the backward pass reads.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    /// Query, key and value.
    inputs: [FloatTensor<B>; 3],
    tables: [Option<FloatTensor<B>>; 2],
    constants: AttentionConstants<B>,
    layout: AttentionLayout,
}

#[derive(Debug)]
struct RelativeSegmentAttention;

/// Parents: `query`, `key`, `value`, and the tables of keys and of queries.
impl<B: MtLoraBackend> Backward<B, 5> for RelativeSegmentAttention {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let saved = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let [query, key, value] = saved.inputs;
        let tables = RelativeTables::from(saved.tables);
        let wanted = [parents[3].is_some(), parents[4].is_some()];
        let (dq, dk, dv, d_tables) = B::relative_segment_attention_backward(
            query,
            key,
            value,
            tables,
            saved.constants,
            dy,
            saved.layout,
            wanted,
        );
        let [d_keys, d_queries] = d_tables.into_options();
        let gradients = [Some(dq), Some(dk), Some(dv), d_keys, d_queries];
        for (parent, gradient) in parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent, gradient);
            }
        }
    }
}

/// The operation on an autodiff backend.
pub(super) fn track<B: MtLoraBackend, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<B, C>>; 3],
    tables: RelativeTables<Autodiff<B, C>>,
    constants: AttentionConstants<Autodiff<B, C>>,
    layout: AttentionLayout,
) -> FloatTensor<Autodiff<B, C>> {
    let tables = tables.into_options();
    let [query, key, value] = inputs.each_ref().map(|tensor| tensor.node());
    let [keys, queries] = tables
        .each_ref()
        .map(|table| node_or_constant::<B, C>(table.as_ref(), &inputs[0]));
    let nodes = [query, key, value, keys, queries];
    let inputs = inputs.map(|tensor| tensor.into_primitive());
    let tables = tables.map(|table| table.map(|table| table.into_primitive()));
    let constants = inner(constants);
    let computed = |[query, key, value]: [FloatTensor<B>; 3], tables, constants, layout| {
        let tables = RelativeTables::from(tables);
        B::relative_segment_attention(query, key, value, tables, constants, layout)
    };
    let prepared = RelativeSegmentAttention.prepare::<C>(nodes);
    let prep = match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep,
        OpsKind::UnTracked(prep) => {
            return prep.finish(computed(inputs, tables, constants, layout));
        }
    };
    let rounding = InputRounding::of::<B>(&inputs[0], &layout);
    let (inputs, kept) = rounding.apply_to_projections::<B>(inputs);
    let [tables, kept_tables] = rounding.apply_to_tables::<B>(tables);
    let saved = Saved {
        inputs: kept,
        tables: kept_tables,
        constants: constants.clone(),
        layout: layout.clone(),
    };
    prep.finish(saved, computed(inputs, tables, constants, layout))
}
