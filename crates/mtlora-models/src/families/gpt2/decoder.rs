use std::collections::BTreeSet;

use burn::tensor::{Device, Int, Tensor, TensorData};
use mtlora_core::{ActivationDtype, Contexts, SequenceOffsets, SequenceOffsetsError};

use super::config::Gpt2Config;
use super::model::CausalLm;
use crate::generation::CausalDecoder;
use crate::layers::attention::Projections;
use crate::packed_batch::PackedBatch;
use crate::text::encoder::Tokens;

/// Why the model could not run.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A prompt without tokens.
    #[error(transparent)]
    SequenceOffsets(#[from] SequenceOffsetsError),
    /// The device could not give its result.
    #[error("the device failed: {0}")]
    Device(String),
}

/// A GPT-2 with its key-value cache, for [`generate`](crate::generate).
///
/// A row is a list of places in the cache: the rows of one prompt share the prompt's places, and
/// continuing a row copies no key and no value.
pub struct Gpt2Decoder<'a> {
    model: &'a CausalLm,
    vocab_size: usize,
    n_positions: usize,
    device: Device,
    cache: Vec<Layer>,
    rows: Vec<Vec<u32>>,
    /// Places that are taken, of all rows there were.
    taken: usize,
}

/// Keys and values of one block: `[places, n_embd]` each.
struct Layer {
    keys: Tensor<2>,
    values: Tensor<2>,
}

impl Layer {
    /// A copy of these places in a cache of `capacity` of them.
    fn moved(&self, places: &Tensor<1, Int>, capacity: usize) -> Self {
        let copy = |old: &Tensor<2>| {
            let [count, width] = [places.dims()[0], old.dims()[1]];
            let new = Tensor::zeros([capacity, width], &old.device());
            new.slice_assign([0..count, 0..width], old.clone().select(0, places.clone()))
        };
        Self {
            keys: copy(&self.keys),
            values: copy(&self.values),
        }
    }

    fn append(self, at: usize, keys: Tensor<2>, values: Tensor<2>) -> Self {
        let [count, width] = keys.dims();
        let ranges = [at..at + count, 0..width];
        Self {
            keys: self.keys.slice_assign(ranges.clone(), keys),
            values: self.values.slice_assign(ranges, values),
        }
    }
}

impl<'a> Gpt2Decoder<'a> {
    /// A decoder of a model that is on `device`, without gradients, its adapters folded in.
    pub fn new(model: &'a CausalLm, config: &Gpt2Config, device: &Device) -> Self {
        Self {
            model,
            vocab_size: config.vocab_size,
            n_positions: config.n_positions,
            device: device.clone(),
            cache: Vec::new(),
            rows: Vec::new(),
            taken: 0,
        }
    }

    fn ints(&self, values: impl Iterator<Item = usize>) -> Tensor<1, Int> {
        let values: Vec<i32> = values.map(|value| value as i32).collect();
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), &self.device)
    }

    /// Logits from the last block's output.
    fn logits(&self, hidden: Tensor<2>) -> Result<Vec<f32>, DecodeError> {
        let normed = self.model.transformer.ln_f.forward(hidden);
        let data = self.model.vocabulary(normed).try_into_data();
        let data = data.map_err(|error| DecodeError::Device(format!("{error:?}")))?;
        let logits = data.convert::<f32>().try_to_vec();
        logits.map_err(|error| DecodeError::Device(format!("{error:?}")))
    }

    fn capacity(&self) -> usize {
        self.cache.first().map_or(0, |layer| layer.keys.dims()[0])
    }

    /// Makes room for `more` places, leaving behind those that no row sees any more.
    fn make_room(&mut self, more: usize) {
        if self.taken + more <= self.capacity() {
            return;
        }
        let live: BTreeSet<u32> = self.rows.iter().flatten().copied().collect();
        let places = self.ints(live.iter().map(|place| *place as usize));
        let capacity = (2 * (live.len() + more)).next_power_of_two();
        let moved = self
            .cache
            .iter()
            .map(|layer| layer.moved(&places, capacity));
        self.cache = moved.collect();
        let mut renamed = vec![0; self.taken];
        for (new, old) in live.iter().enumerate() {
            renamed[*old as usize] = new as u32;
        }
        for place in self.rows.iter_mut().flatten() {
            *place = renamed[*place as usize];
        }
        self.taken = live.len();
    }
}

impl CausalDecoder for Gpt2Decoder<'_> {
    type Error = DecodeError;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.n_positions
    }

    fn start(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<f32>, DecodeError> {
        let tokens: Vec<Tokens> = prompts
            .iter()
            .map(|ids| Tokens {
                ids: ids.clone(),
                type_ids: vec![0; ids.len()],
            })
            .collect();
        let strip = PackedBatch::at(&tokens.iter().collect::<Vec<_>>(), 0, &self.device)?;
        let segments: &SequenceOffsets = &strip.segments;
        let transformer = &self.model.transformer;
        let mut hidden = transformer.embed(strip.ids.clone(), strip.positions.clone());
        self.cache.clear();
        for block in &transformer.h {
            let attention = &block.attn;
            let [query, keys, values] = attention
                .project(block.ln_1.forward(hidden.clone()))
                .separate();
            let inputs = Projections::Separate([query, keys.clone(), values.clone()]);
            let dropout = &attention.attn_dropout;
            let saved = ActivationDtype::F32;
            let context = attention
                .attention
                .over_batch(inputs, segments, dropout, saved);
            hidden = block.feed_forward(hidden, context);
            self.cache.push(Layer { keys, values });
        }
        self.taken = segments.tokens();
        let ranges = segments.starts().iter().zip(segments.lengths());
        self.rows = ranges
            .map(|(start, length)| (*start as u32..(start + length) as u32).collect())
            .collect();
        let last = self.rows.iter().filter_map(|row| row.last());
        let last = self.ints(last.map(|place| *place as usize));
        self.logits(hidden.select(0, last))
    }

    fn step(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, DecodeError> {
        let continued = parents.iter().map(|parent| self.rows[*parent].clone());
        self.rows = continued.collect();
        self.make_room(tokens.len());
        let at = self.taken;
        self.taken += tokens.len();
        for (row, place) in self.rows.iter_mut().zip(at..) {
            row.push(place as u32);
        }
        let contexts = Contexts::new(self.rows.iter().map(Vec::as_slice));
        let ids = self.ints(tokens.iter().map(|token| *token as usize));
        let positions = self.ints(self.rows.iter().map(|row| row.len() - 1));
        let transformer = &self.model.transformer;
        let mut hidden = transformer.embed(ids, positions);
        let cache = std::mem::take(&mut self.cache);
        for (block, layer) in transformer.h.iter().zip(cache) {
            let attention = &block.attn;
            let [query, keys, values] = attention
                .project(block.ln_1.forward(hidden.clone()))
                .separate();
            let layer = layer.append(at, keys, values);
            let caches = [layer.keys.clone(), layer.values.clone()];
            let context = attention.attention.over_cache(query, caches, &contexts);
            hidden = block.feed_forward(hidden, context);
            self.cache.push(layer);
        }
        self.logits(hidden)
    }
}
