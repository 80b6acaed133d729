//! The encoder that RoBERTa, BERT and their kin share, on packed batches.
//!
//! The fields are named like Hugging Face's modules, so that paths end as users of PEFT expect: `query`, `value`,
//! `attention.output.dense`, `intermediate.dense`, ...

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};
use mtlora_core::{ActivationDtype, SequenceOffsets, adapted_embedding, adapted_linear, dropout};

use crate::families::encoder::config::EncoderConfig;
use crate::layers::attention::{Attention, Projections};
use crate::layers::layer_norm::LayerNorm;
use crate::layers::post_norm::{Intermediate, Output, PostNormSizes};
use crate::layers::weights::{zero_embedding, zero_linear};
use crate::packed_batch::PackedBatch;

/// The sum of token, position and type embeddings, followed by a layer norm and dropout.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// `[vocab_size, hidden]`
    pub word_embeddings: Embedding,
    /// `[max_position_embeddings, hidden]`
    pub position_embeddings: Embedding,
    /// `[type_vocab_size, hidden]`
    pub token_type_embeddings: Embedding,
    /// The layer norm over the hidden size.
    pub layer_norm: LayerNorm,
    /// Dropout after the layer norm.
    pub dropout: Dropout,
}

impl Embeddings {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        let embedding = |rows| zero_embedding(rows, config.hidden_size, device);
        Self {
            word_embeddings: embedding(config.vocab_size),
            position_embeddings: embedding(config.max_position_embeddings),
            token_type_embeddings: embedding(config.type_vocab_size),
            layer_norm: layer_norm(config, device),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
        }
    }

    fn forward(&self, batch: &PackedBatch) -> Tensor<2> {
        let words = adapted_embedding(&self.word_embeddings, batch.ids.clone());
        let positions = adapted_embedding(&self.position_embeddings, batch.positions.clone());
        let types = adapted_embedding(&self.token_type_embeddings, batch.type_ids.clone());
        let sum = words + types + positions;
        dropout(&self.dropout, self.layer_norm.forward(sum))
    }
}

/// The projections of query, key and value.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// `[hidden, hidden]`
    pub query: Linear,
    /// `[hidden, hidden]`
    pub key: Linear,
    /// `[hidden, hidden]`
    pub value: Linear,
    /// Dropout of the attention probabilities.
    pub dropout: Dropout,
    /// The heads and their width.
    #[module(skip)]
    pub attention: Attention,
}

impl SelfAttention {
    fn forward(&self, hidden: Tensor<2>, offsets: &SequenceOffsets) -> Tensor<2> {
        let query = adapted_linear(&self.query, hidden.clone());
        let key = adapted_linear(&self.key, hidden.clone());
        let value = adapted_linear(&self.value, hidden);
        let inputs = Projections::Separate([query, key, value]);
        let saved = ActivationDtype::beside(&self.query.weight);
        self.attention
            .over_batch(inputs, offsets, &self.dropout, saved)
    }
}

/// Attention with its output projection.
#[derive(Module, Debug)]
pub struct AttentionBlock {
    /// The attention, named `self` in checkpoints.
    pub self_: SelfAttention,
    /// The output projection: `[hidden, hidden]`.
    pub output: Output,
}

/// One transformer layer.
#[derive(Module, Debug)]
pub struct Layer {
    /// The attention within each sequence.
    pub attention: AttentionBlock,
    /// The first map of the feed-forward part.
    pub intermediate: Intermediate,
    /// The second map of the feed-forward part.
    pub output: Output,
}

impl Layer {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let sizes = PostNormSizes {
            hidden,
            inner: config.intermediate_size,
            activation: config.hidden_act,
            dropout: config.hidden_dropout_prob,
            epsilon: config.layer_norm_eps,
        };
        Self {
            attention: AttentionBlock {
                self_: SelfAttention {
                    query: zero_linear(hidden, hidden, device),
                    key: zero_linear(hidden, hidden, device),
                    value: zero_linear(hidden, hidden, device),
                    dropout: DropoutConfig::new(config.attention_probs_dropout_prob).init(),
                    attention: config.attention,
                },
                output: Output::new(sizes, hidden, device),
            },
            intermediate: Intermediate::new(sizes, device),
            output: Output::new(sizes, config.intermediate_size, device),
        }
    }

    fn forward(&self, hidden: Tensor<2>, offsets: &SequenceOffsets) -> Tensor<2> {
        let context = self.attention.self_.forward(hidden.clone(), offsets);
        self.feed_forward(context, hidden)
    }

    /// Computes only the rows `starts`, the first tokens, which are all that a classifier needs of the last layer.
    fn forward_first(&self, hidden: Tensor<2>, batch: &PackedBatch) -> Tensor<2> {
        let context = self.attention.self_.forward(hidden.clone(), &batch.offsets);
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

/// The layers of the encoder.
#[derive(Module, Debug)]
pub struct Layers {
    /// The layers, in order.
    pub layer: Vec<Layer>,
}

/// BERT's map of the first token's hidden state, which is pre-trained, unlike the head.
#[derive(Module, Debug)]
pub struct Pooler {
    /// `[hidden, hidden]`
    pub dense: Linear,
}

impl Pooler {
    pub(crate) fn new(config: &EncoderConfig, device: &Device) -> Self {
        Self {
            dense: zero_linear(config.hidden_size, config.hidden_size, device),
        }
    }

    pub(crate) fn forward(&self, first: Tensor<2>) -> Tensor<2> {
        tanh(adapted_linear(&self.dense, first))
    }
}

/// RoBERTa or BERT without a head.
#[derive(Module, Debug)]
pub struct Encoder {
    /// The embeddings.
    pub embeddings: Embeddings,
    /// The layers.
    pub encoder: Layers,
    /// BERT's pooler; `None` if the model has none or its head does not use it.
    pub pooler: Option<Pooler>,
}

impl Encoder {
    /// An encoder whose weights are all zero, for a checkpoint or random values to replace.
    pub(crate) fn new(config: &EncoderConfig, device: &Device) -> Self {
        let layers = 0..config.num_hidden_layers;
        Self {
            embeddings: Embeddings::new(config, device),
            encoder: Layers {
                layer: layers.map(|_| Layer::new(config, device)).collect(),
            },
            pooler: None,
        }
    }

    /// The hidden states of every token: `[tokens, hidden]`.
    pub fn forward(&self, batch: &PackedBatch) -> Tensor<2> {
        let embedded = self.embeddings.forward(batch);
        self.encoder.layer.iter().fold(embedded, |hidden, layer| {
            layer.forward(hidden, &batch.offsets)
        })
    }

    /// The embeddings and the hidden states after each layer: each `[tokens, hidden]`.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Vec<Tensor<2>> {
        let mut states = vec![self.embeddings.forward(batch)];
        for (index, layer) in self.encoder.layer.iter().enumerate() {
            states.push(layer.forward(states[index].clone(), &batch.offsets));
        }
        states
    }

    /// The last hidden state of each sequence's first token: `[sequences, hidden]`. After its attention the last
    /// layer computes only these rows.
    pub fn first_tokens(&self, batch: &PackedBatch) -> Tensor<2> {
        let embedded = self.embeddings.forward(batch);
        let Some((last, layers)) = self.encoder.layer.split_last() else {
            return embedded.select(0, batch.starts.clone());
        };
        let hidden = layers.iter().fold(embedded, |hidden, layer| {
            layer.forward(hidden, &batch.offsets)
        });
        last.forward_first(hidden, batch)
    }

    /// The logits over the vocabulary, `hidden Wᵀ`, where `W` are the word embeddings.
    pub(crate) fn vocabulary(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden.matmul(self.embeddings.word_embeddings.weight.val().transpose())
    }
}

pub(crate) fn layer_norm(config: &EncoderConfig, device: &Device) -> LayerNorm {
    LayerNorm::new(config.hidden_size, config.layer_norm_eps, device)
}
