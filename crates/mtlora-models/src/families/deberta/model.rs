//! DeBERTa's encoder on packed batches.
//!
//! The fields are named like Hugging Face's modules, so that paths end as users of PEFT expect: `query_proj`, `value_proj`,
//! `attention.output.dense`, `intermediate.dense`, ...

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use mtlora_core::{ActivationDtype, SequenceOffsets, adapted_embedding, adapted_linear, dropout};

use super::config::DebertaConfig;
use super::positions::RelativeBuckets;
use crate::layers::attention::{Attention, Projections};
use crate::layers::layer_norm::LayerNorm;
use crate::layers::post_norm::{Intermediate, Output, PostNormSizes};
use crate::layers::weights::{zero_embedding, zero_linear, zero_linear_without_bias};
use crate::packed_batch::PackedBatch;

/// The sum of the embeddings that there are, projected to the hidden size where theirs is another, followed by a layer norm
/// and dropout.
#[derive(Module, Debug)]
pub struct DebertaEmbeddings {
    /// `[vocab_size, embedding_size]`
    pub word_embeddings: Embedding,
    /// `[max_position_embeddings, embedding_size]`, with `position_biased_input`.
    pub position_embeddings: Option<Embedding>,
    /// `[type_vocab_size, embedding_size]`, if there are token types.
    pub token_type_embeddings: Option<Embedding>,
    /// `[embedding_size, hidden]`, if the two differ.
    pub embed_proj: Option<Linear>,
    /// The layer norm over the hidden size.
    pub layer_norm: LayerNorm,
    /// Dropout after the layer norm.
    pub dropout: Dropout,
}

impl DebertaEmbeddings {
    fn new(config: &DebertaConfig, device: &Device) -> Self {
        let [own, hidden] = [config.embedding_size, config.hidden_size];
        let embedding = |rows| zero_embedding(rows, own, device);
        let has_types = config.type_vocab_size > 0;
        Self {
            word_embeddings: embedding(config.vocab_size),
            position_embeddings: config
                .position_biased_input
                .then(|| embedding(config.max_position_embeddings)),
            token_type_embeddings: has_types.then(|| embedding(config.type_vocab_size)),
            embed_proj: (own != hidden).then(|| zero_linear_without_bias(own, hidden, device)),
            layer_norm: layer_norm(config, device),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
        }
    }

    fn forward(&self, batch: &PackedBatch) -> Tensor<2> {
        let mut sum = adapted_embedding(&self.word_embeddings, batch.ids.clone());
        for (embedding, ids) in [
            (&self.position_embeddings, &batch.positions),
            (&self.token_type_embeddings, &batch.type_ids),
        ] {
            if let Some(embedding) = embedding {
                sum = sum + adapted_embedding(embedding, ids.clone());
            }
        }
        if let Some(map) = &self.embed_proj {
            sum = adapted_linear(map, sum);
        }
        dropout(&self.dropout, self.layer_norm.forward(sum))
    }
}

/// The embeddings of the relative positions that a batch needs, once for all layers.
#[derive(Clone, Debug)]
struct Distances {
    /// A row for each bucket: `[buckets, hidden]`.
    embeddings: Tensor<2>,
    /// The row of each distance, where several distances share one: `[2 * longest - 1]`.
    by_distance: Option<Tensor<1, Int>>,
}

impl Distances {
    /// A row for each distance: `[buckets, width]` to `[2 * longest - 1, width]`.
    fn spread(&self, rows: Tensor<2>) -> Tensor<2> {
        match &self.by_distance {
            Some(by_distance) => rows.select(0, by_distance.clone()),
            None => rows,
        }
    }
}

/// The projections of query, key and value, and those of relative positions.
#[derive(Module, Debug)]
pub struct DisentangledSelfAttention {
    /// `[hidden, hidden]`
    pub query_proj: Linear,
    /// `[hidden, hidden]`
    pub key_proj: Linear,
    /// `[hidden, hidden]`
    pub value_proj: Linear,
    /// The keys of relative positions, `[hidden, hidden]`, where they are used and `key_proj` does not make them.
    pub pos_key_proj: Option<Linear>,
    /// The queries of relative positions, `[hidden, hidden]`, where they are used and `query_proj` does not make them.
    pub pos_query_proj: Option<Linear>,
    /// Dropout of the attention probabilities.
    pub dropout: Dropout,
    /// Dropout of the relative-position embeddings.
    pub pos_dropout: Dropout,
    /// The heads and their width.
    #[module(skip)]
    pub attention: Attention,
    /// Whether queries, and whether keys, are multiplied with relative positions.
    #[module(skip)]
    reads_positions: [bool; 2],
}

impl DisentangledSelfAttention {
    fn new(config: &DebertaConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let map = || zero_linear(hidden, hidden, device);
        let has_relative = config.relative.is_some();
        let reads = [config.content_to_position, config.position_to_content]
            .map(|reads| reads && has_relative);
        let [keys, queries] = reads.map(|reads| reads && !config.share_att_key);
        Self {
            query_proj: map(),
            key_proj: map(),
            value_proj: map(),
            pos_key_proj: keys.then(map),
            pos_query_proj: queries.then(map),
            dropout: DropoutConfig::new(config.attention_probs_dropout_prob).init(),
            pos_dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
            attention: config.attention,
            reads_positions: reads,
        }
    }

    /// Keys and queries of relative positions: each `[2 * longest - 1, hidden]`.
    fn positions(&self, distances: Option<&Distances>) -> [Option<Tensor<2>>; 2] {
        let Some(distances) = distances else {
            return [None, None];
        };
        let embeddings = dropout(&self.pos_dropout, distances.embeddings.clone());
        let maps = [
            self.pos_key_proj.as_ref().unwrap_or(&self.key_proj),
            self.pos_query_proj.as_ref().unwrap_or(&self.query_proj),
        ];
        [0, 1].map(|index| {
            self.reads_positions[index]
                .then(|| distances.spread(adapted_linear(maps[index], embeddings.clone())))
        })
    }

    fn forward(
        &self,
        hidden: Tensor<2>,
        offsets: &SequenceOffsets,
        distances: Option<&Distances>,
    ) -> Tensor<2> {
        let query = adapted_linear(&self.query_proj, hidden.clone());
        let key = adapted_linear(&self.key_proj, hidden.clone());
        let value = adapted_linear(&self.value_proj, hidden);
        let inputs = Projections::WithPositions {
            content: [query, key, value],
            positions: self.positions(distances),
        };
        let saved = ActivationDtype::beside(&self.query_proj.weight);
        self.attention
            .over_batch(inputs, offsets, &self.dropout, saved)
    }
}

/// Attention with its output projection.
#[derive(Module, Debug)]
pub struct DebertaAttention {
    /// The attention, named `self` in checkpoints.
    pub self_: DisentangledSelfAttention,
    /// The output projection: `[hidden, hidden]`.
    pub output: Output,
}

/// One transformer layer.
#[derive(Module, Debug)]
pub struct DebertaLayer {
    /// The attention within each sequence.
    pub attention: DebertaAttention,
    /// The first map of the feed-forward part.
    pub intermediate: Intermediate,
    /// The second map of the feed-forward part.
    pub output: Output,
}

impl DebertaLayer {
    fn new(config: &DebertaConfig, device: &Device) -> Self {
        let sizes = PostNormSizes {
            hidden: config.hidden_size,
            inner: config.intermediate_size,
            activation: config.hidden_act,
            dropout: config.hidden_dropout_prob,
            epsilon: config.layer_norm_eps,
        };
        Self {
            attention: DebertaAttention {
                self_: DisentangledSelfAttention::new(config, device),
                output: Output::new(sizes, config.hidden_size, device),
            },
            intermediate: Intermediate::new(sizes, device),
            output: Output::new(sizes, config.intermediate_size, device),
        }
    }

    fn forward(
        &self,
        hidden: Tensor<2>,
        offsets: &SequenceOffsets,
        distances: Option<&Distances>,
    ) -> Tensor<2> {
        let context = (self.attention.self_).forward(hidden.clone(), offsets, distances);
        self.feed_forward(context, hidden)
    }

    /// Computes only the rows `starts`, the first tokens, which are all that a classifier needs of the last layer.
    fn forward_first(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        distances: Option<&Distances>,
    ) -> Tensor<2> {
        let context = (self.attention.self_).forward(hidden.clone(), &batch.offsets, distances);
        self.feed_forward(
            context.select(0, batch.starts.clone()),
            hidden.select(0, batch.starts.clone()),
        )
    }

    fn feed_forward(&self, context: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        let attended = self.attention.output.forward(context, residual);
        let wide = self.intermediate.forward(attended.clone());
        self.output.forward(wide, attended)
    }
}

/// The layers of the encoder, with the relative-position embeddings that they share.
#[derive(Module, Debug)]
pub struct DebertaLayers {
    /// The layers, in order.
    pub layer: Vec<DebertaLayer>,
    /// `[2 * position_buckets, hidden]`, or with a row for each distance.
    pub rel_embeddings: Option<Embedding>,
    /// The norm of the relative-position embeddings.
    pub layer_norm: Option<LayerNorm>,
    /// The row of each distance.
    #[module(skip)]
    relative: Option<RelativeBuckets>,
}

impl DebertaLayers {
    fn new(config: &DebertaConfig, device: &Device) -> Self {
        let layers = 0..config.num_hidden_layers;
        let table = |relative: RelativeBuckets| {
            zero_embedding(2 * relative.span(), config.hidden_size, device)
        };
        let norm = config.normalizes_relative;
        Self {
            layer: layers.map(|_| DebertaLayer::new(config, device)).collect(),
            rel_embeddings: config.relative.map(table),
            layer_norm: norm.then(|| layer_norm(config, device)),
            relative: config.relative,
        }
    }

    fn distances(&self, offsets: &SequenceOffsets, device: &Device) -> Option<Distances> {
        let (embeddings, relative) = (self.rel_embeddings.as_ref()?, self.relative?);
        let rows = relative.rows(offsets.lengths().max().unwrap_or(1));
        let ids = |ids: Vec<u32>| {
            let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
            let count = ids.len();
            Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), device)
        };
        let embeddings = adapted_embedding(embeddings, ids(rows.rows));
        Some(Distances {
            embeddings: match &self.layer_norm {
                Some(norm) => norm.forward(embeddings),
                None => embeddings,
            },
            by_distance: rows.by_distance.map(ids),
        })
    }
}

/// DeBERTa without a head.
#[derive(Module, Debug)]
pub struct DebertaEncoder {
    /// The embeddings.
    pub embeddings: DebertaEmbeddings,
    /// The layers.
    pub encoder: DebertaLayers,
}

impl DebertaEncoder {
    /// An encoder whose weights are all zero, for a checkpoint or random values to replace.
    pub(super) fn new(config: &DebertaConfig, device: &Device) -> Self {
        Self {
            embeddings: DebertaEmbeddings::new(config, device),
            encoder: DebertaLayers::new(config, device),
        }
    }

    fn distances(&self, batch: &PackedBatch) -> Option<Distances> {
        let device = batch.ids.device();
        self.encoder.distances(&batch.offsets, &device)
    }

    /// The embeddings and the hidden states after each layer: each `[tokens, hidden]`.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Vec<Tensor<2>> {
        let distances = self.distances(batch);
        let mut states = vec![self.embeddings.forward(batch)];
        for (index, layer) in self.encoder.layer.iter().enumerate() {
            let hidden = states[index].clone();
            states.push(layer.forward(hidden, &batch.offsets, distances.as_ref()));
        }
        states
    }

    /// The last hidden state of each sequence's first token: `[sequences, hidden]`. After its attention the last
    /// layer computes only these rows.
    pub fn first_tokens(&self, batch: &PackedBatch) -> Tensor<2> {
        let distances = self.distances(batch);
        let embedded = self.embeddings.forward(batch);
        let Some((last, layers)) = self.encoder.layer.split_last() else {
            return embedded.select(0, batch.starts.clone());
        };
        let hidden = layers.iter().fold(embedded, |hidden, layer| {
            layer.forward(hidden, &batch.offsets, distances.as_ref())
        });
        last.forward_first(hidden, batch, distances.as_ref())
    }
}

fn layer_norm(config: &DebertaConfig, device: &Device) -> LayerNorm {
    LayerNorm::new(config.hidden_size, config.layer_norm_eps, device)
}
