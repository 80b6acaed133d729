//! Decoding with a key-value cache, for every causal model.

use std::collections::BTreeSet;

use burn::nn::Dropout;
use burn::tensor::{Device, Int, Tensor, TensorData, s};
use mtlora_core::{ActivationDtype, Contexts, SequenceOffsets, SequenceOffsetsError, read};

use super::causal::{CausalLm, CausalModelConfig};
use crate::generation::{CausalDecoder, RewindingDecoder};
use crate::layers::attention::{Attention, Projections};
use crate::layers::attention_context::{AttentionContext, TokenPositions};
use crate::packed_batch::PackedBatch;
use crate::text::encoder::Tokens;

/// How many new tokens of one row are read at once after an earlier part of it.
const READ_AT_ONCE: usize = 64;

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

/// A causal model with its key-value cache, for [`generate`](crate::generate).
///
/// A row is a list of places in the cache: the rows of one prompt share the prompt's places, and
/// continuing a row copies no key and no value.
pub struct CachedDecoder<'a> {
    model: &'a CausalLm,
    vocab_size: usize,
    max_positions: usize,
    device: Device,
    cache: Vec<LayerCache>,
    rows: Vec<Vec<u32>>,
    /// Places that are taken, by all rows so far.
    taken: usize,
}

/// Keys and values of one layer: `[places, key_value_heads * head_width]` each.
struct LayerCache {
    keys: Tensor<2>,
    values: Tensor<2>,
}

impl LayerCache {
    /// A copy of these places in a cache of `capacity` places.
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

/// The prompts, whose keys and values are kept, layer after layer.
struct Prompts<'a> {
    sequences: &'a SequenceOffsets,
    positions: TokenPositions,
    cache: Vec<LayerCache>,
}

impl AttentionContext for Prompts<'_> {
    fn attend(
        &mut self,
        attention: &Attention,
        projections: Projections,
        dropout: &Dropout,
        _saved: ActivationDtype,
    ) -> Tensor<2> {
        let projections = self.positions.placed(attention, projections);
        let [query, keys, values] = projections.separate();
        self.cache.push(LayerCache {
            keys: keys.clone(),
            values: values.clone(),
        });
        let projections = Projections::Separate([query, keys, values]);
        // There is no backward pass to keep anything for.
        attention.over_batch(projections, self.sequences, dropout, ActivationDtype::F32)
    }
}

/// One new token a row, whose keys and values are added to the cache, layer after layer.
struct NewTokens {
    contexts: Contexts,
    positions: TokenPositions,
    /// The place of the first row's new token.
    at: usize,
    /// The layers that are still to come.
    before: std::vec::IntoIter<LayerCache>,
    after: Vec<LayerCache>,
}

impl AttentionContext for NewTokens {
    fn attend(
        &mut self,
        attention: &Attention,
        projections: Projections,
        _dropout: &Dropout,
        _saved: ActivationDtype,
    ) -> Tensor<2> {
        let projections = self.positions.placed(attention, projections);
        let [query, keys, values] = projections.separate();
        let Some(layer) = self.before.next() else {
            unreachable!("a model has as many layers in each step as it had for the prompts");
        };
        let layer = layer.append(self.at, keys, values);
        let caches = [layer.keys.clone(), layer.values.clone()];
        self.after.push(layer);
        attention.over_cache(query, caches, &self.contexts)
    }
}

impl<'a> CachedDecoder<'a> {
    /// A decoder of a model that is on `device`, without gradients, its adapters folded in.
    pub fn new(model: &'a CausalLm, config: &dyn CausalModelConfig, device: &Device) -> Self {
        Self {
            model,
            vocab_size: config.vocab_size(),
            max_positions: config.max_tokens(),
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

    /// The embeddings of these tokens, through all layers.
    fn forward(
        &self,
        ids: Tensor<1, Int>,
        positions: Tensor<1, Int>,
        attention: &mut dyn AttentionContext,
    ) -> Tensor<2> {
        let model = self.model.model();
        let embedded = model.embed(ids, positions);
        (0..model.layers()).fold(embedded, |hidden, index| {
            model.layer(index, hidden, attention)
        })
    }

    /// Logits from the last layer's output.
    fn logits(&self, hidden: Tensor<2>) -> Result<Vec<f32>, DecodeError> {
        let finished = self.model.model().finish(hidden);
        let logits = read(self.model.vocabulary(finished));
        logits.map_err(|error| DecodeError::Device(format!("{error:?}")))
    }

    /// The last layer's output for new tokens, `[tokens, hidden]`. Each has a row of `contexts`: the places that it sees, of
    /// which the last is its own. Their own places begin at `at`.
    fn read_new(&mut self, contexts: &[Vec<u32>], at: usize, tokens: &[u32]) -> Tensor<2> {
        let ids = self.ints(tokens.iter().map(|token| *token as usize));
        let positions = self.ints(contexts.iter().map(|row| row.len() - 1));
        let cache = std::mem::take(&mut self.cache);
        let mut attention = NewTokens {
            contexts: Contexts::new(contexts.iter().map(Vec::as_slice)),
            positions: TokenPositions::new(contexts.iter().map(|row| row.len() - 1)),
            at,
            after: Vec::with_capacity(cache.len()),
            before: cache.into_iter(),
        };
        let hidden = self.forward(ids, positions, &mut attention);
        self.cache = attention.after;
        hidden
    }

    fn capacity(&self) -> usize {
        self.cache.first().map_or(0, |layer| layer.keys.dims()[0])
    }

    /// Makes room for `more` places, and drops those that no row sees any more.
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

impl CausalDecoder for CachedDecoder<'_> {
    type Error = DecodeError;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn start(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<f32>, DecodeError> {
        let tokens: Vec<Tokens> = prompts
            .iter()
            .map(|ids| Tokens {
                ids: ids.clone(),
                type_ids: vec![0; ids.len()],
            })
            .collect();
        let batch = PackedBatch::from_zero(&tokens.iter().collect::<Vec<_>>(), &self.device)?;
        let sequences = &batch.offsets;
        // The old cache is given back before the new one is made.
        self.cache.clear();
        let mut attention = Prompts {
            sequences,
            positions: TokenPositions::of_sequences(sequences),
            cache: Vec::new(),
        };
        let (ids, positions) = (batch.ids.clone(), batch.positions.clone());
        let hidden = self.forward(ids, positions, &mut attention);
        self.cache = attention.cache;
        self.taken = sequences.tokens();
        let ranges = sequences.starts().iter().zip(sequences.lengths());
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
        let rows = std::mem::take(&mut self.rows);
        let hidden = self.read_new(&rows, at, tokens);
        self.rows = rows;
        self.logits(hidden)
    }
}

impl RewindingDecoder for CachedDecoder<'_> {
    fn rewind(&mut self, kept: usize, tokens: &[u32]) -> Result<Vec<f32>, DecodeError> {
        if kept == 0 || self.rows.is_empty() {
            return self.start(&[tokens.to_vec()]);
        }
        self.rows.truncate(1);
        for row in &mut self.rows {
            row.truncate(kept);
        }
        let mut last = None;
        for part in tokens.chunks(READ_AT_ONCE) {
            self.make_room(part.len());
            let at = self.taken;
            self.taken += part.len();
            let Some(row) = self.rows.first_mut() else {
                unreachable!("there is a row, as was checked above");
            };
            // Each new token sees the row before it, and the new tokens before it.
            let contexts: Vec<Vec<u32>> = (at..self.taken)
                .map(|place| {
                    row.push(place as u32);
                    row.clone()
                })
                .collect();
            let hidden = self.read_new(&contexts, at, part);
            let count = part.len();
            last = Some(hidden.slice(s![count - 1..count, ..]));
        }
        match last {
            Some(hidden) => self.logits(hidden),
            None => Ok(Vec::new()),
        }
    }
}
