//! Gradient checkpointing: a forward pass that keeps each layer's input and nothing else, and a backward pass that computes each
//! layer again from it (Chen et al., arXiv 1604.06174, with one segment a layer).
//!
//! The layer that is computed again is the same one, with the same dropout: masks follow from a seed, and the seeds from
//! [`random_state`], which is kept with the input. So the gradients have the same bytes as without.

use burn::module::Module;
use burn::tensor::{Device, Gradients, Tensor};
use mtlora_core::{capabilities, random_state, set_random_state, tied_cross_entropy};

use super::causal::CausalLm;
use super::causal_batch::CausalBatch;
use crate::layers::attention_context::BatchAttention;
use crate::packed_batch::PackedBatch;

/// The layers of a forward pass, to be computed again.
#[derive(Debug)]
pub struct RecomputedLayers {
    model: CausalLm,
    packed: PackedBatch,
    device: Device,
    /// The random state before the embeddings.
    start: u64,
    /// Each layer's input, `[tokens, hidden]`, and the random state before it.
    layers: Vec<(Tensor<2>, u64)>,
    /// What came out of the last layer, as a leaf of the loss's graph: `[tokens, hidden]`.
    output: Tensor<2>,
}

/// The random state, from which the masks that follow can be made again.
fn marked(device: &Device) -> u64 {
    let state = random_state();
    if !capabilities(device).seeded_dropout {
        // The device's own generator starts again here.
        set_random_state(device, state);
    }
    state
}

impl CausalLm {
    /// As [`loss`](Self::loss), on an autodiff device, but the graph of the loss begins after the last layer. The layers'
    /// gradients come from [`RecomputedLayers::gradients`].
    pub fn checkpointed_loss(
        &self,
        batch: &CausalBatch,
        label_smoothing: f64,
    ) -> (Tensor<1>, RecomputedLayers) {
        let packed = batch.packed.clone();
        let device = packed.ids.device();
        // The same weights without a graph.
        let frozen = self.clone().no_grad();
        let model = frozen.model();
        let mut attention = BatchAttention::new(&packed.offsets);
        let start = marked(&device);
        let mut hidden = model.embed(packed.ids.clone(), packed.positions.clone());
        let mut layers = Vec::with_capacity(model.layers());
        for index in 0..model.layers() {
            let state = marked(&device);
            layers.push((hidden.clone(), state));
            hidden = model.layer(index, hidden, &mut attention);
        }
        let output = hidden.require_grad();
        let own = self.model();
        let rows = own.finish(output.clone()).select(0, batch.places.clone());
        let targets = batch.targets.clone();
        let loss = tied_cross_entropy(rows, own.output_map(), targets, label_smoothing);
        let layers = RecomputedLayers {
            model: self.clone(),
            packed,
            device,
            start,
            layers,
            output,
        };
        (loss, layers)
    }
}

impl RecomputedLayers {
    /// The gradients of the layers' and the embeddings' parameters, in parts that are to be added up. `gradients` are those of
    /// the loss, or of what was made of it, from which that of the last layer's output is taken.
    pub fn gradients(self, gradients: &mut Gradients) -> Vec<Gradients> {
        let mut parts = Vec::new();
        let Some(dy) = self.output.grad_remove(gradients) else {
            return parts;
        };
        let mut dy = Tensor::<2>::from_inner(dy);
        drop(self.output);
        let after = random_state();
        let model = self.model.model();
        let mut attention = BatchAttention::new(&self.packed.offsets);
        for (index, (input, state)) in self.layers.into_iter().enumerate().rev() {
            set_random_state(&self.device, state);
            let input = input.require_grad();
            let output = model.layer(index, input.clone(), &mut attention);
            // The gradient of the sum is `dy`, exactly.
            let mut gradients = (output * dy).sum().backward();
            let Some(dx) = input.grad_remove(&mut gradients) else {
                return parts;
            };
            dy = Tensor::from_inner(dx);
            parts.push(gradients);
        }
        set_random_state(&self.device, self.start);
        let embedded = model.embed(self.packed.ids.clone(), self.packed.positions.clone());
        if embedded.is_tracked() {
            parts.push((embedded * dy).sum().backward());
        }
        set_random_state(&self.device, after);
        parts
    }
}
