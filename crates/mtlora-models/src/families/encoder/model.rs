//! The encoder that RoBERTa and BERT share, on packed batches.
//!
//! Field names follow the modules of Hugging Face's models, so that a path ends as PEFT's users
//! know it: `query`, `value`, `attention.output.dense`, `intermediate.dense`, ...

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};
use mtlora_core::{ActivationDtype, SequenceOffsets, adapted_embedding, adapted_linear, dropout};

use crate::families::encoder::config::EncoderConfig;
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, Projections};
use crate::layers::feed_forward::widen;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::weights::{zero_embedding, zero_linear};
use crate::packed_batch::PackedBatch;

/// Token, position and type embeddings, summed and normalised.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// `[vocab_size, hidden]`
    pub word_embeddings: Embedding,
    /// `[max_position_embeddings, hidden]`
    pub position_embeddings: Embedding,
    /// `[type_vocab_size, hidden]`
    pub token_type_embeddings: Embedding,
    /// Over `hidden`.
    pub layer_norm: LayerNorm,
    /// After the norm.
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

/// Projections of the attention's inputs.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// `[hidden, hidden]`
    pub query: Linear,
    /// `[hidden, hidden]`
    pub key: Linear,
    /// `[hidden, hidden]`
    pub value: Linear,
    /// On the attention probabilities.
    pub dropout: Dropout,
    /// Heads and their width.
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

/// A linear map, dropout, the residual, and the norm after it.
#[derive(Module, Debug)]
pub struct Output {
    /// To `hidden`.
    pub dense: Linear,
    /// Before the residual.
    pub dropout: Dropout,
    /// Over `hidden`.
    pub layer_norm: LayerNorm,
}

impl Output {
    fn new(config: &EncoderConfig, input: usize, device: &Device) -> Self {
        Self {
            dense: zero_linear(input, config.hidden_size, device),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
            layer_norm: layer_norm(config, device),
        }
    }

    fn forward(&self, x: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        let x = dropout(&self.dropout, adapted_linear(&self.dense, x));
        self.layer_norm.forward(x + residual)
    }
}

/// Attention with its output projection.
#[derive(Module, Debug)]
pub struct AttentionBlock {
    /// `self` in the checkpoint.
    pub self_: SelfAttention,
    /// From `hidden` to `hidden`.
    pub output: Output,
}

/// The widening half of the feed-forward block.
#[derive(Module, Debug)]
pub struct Intermediate {
    /// `[hidden, intermediate_size]`
    pub dense: Linear,
    /// The nonlinearity.
    #[module(skip)]
    pub activation: Activation,
}

impl Intermediate {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        widen(&self.dense, self.activation, x)
    }
}

/// One transformer layer.
#[derive(Module, Debug)]
pub struct Layer {
    /// Attention over each sequence.
    pub attention: AttentionBlock,
    /// First half of the feed-forward block.
    pub intermediate: Intermediate,
    /// Second half.
    pub output: Output,
}

impl Layer {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        Self {
            attention: AttentionBlock {
                self_: SelfAttention {
                    query: zero_linear(hidden, hidden, device),
                    key: zero_linear(hidden, hidden, device),
                    value: zero_linear(hidden, hidden, device),
                    dropout: DropoutConfig::new(config.attention_probs_dropout_prob).init(),
                    attention: config.attention,
                },
                output: Output::new(config, hidden, device),
            },
            intermediate: Intermediate {
                dense: zero_linear(hidden, config.intermediate_size, device),
                activation: config.hidden_act,
            },
            output: Output::new(config, config.intermediate_size, device),
        }
    }

    fn forward(&self, hidden: Tensor<2>, offsets: &SequenceOffsets) -> Tensor<2> {
        let context = self.attention.self_.forward(hidden.clone(), offsets);
        self.feed_forward(context, hidden)
    }

    /// Only the rows `starts`: all that a classifier reads of the last layer.
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

/// The layers.
#[derive(Module, Debug)]
pub struct Layers {
    /// From the first to the last.
    pub layer: Vec<Layer>,
}

/// BERT's map of the first token's hidden state, trained before the head was.
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
    /// What the tokens become.
    pub embeddings: Embeddings,
    /// The layers.
    pub encoder: Layers,
    /// Where a classifier of this architecture reads through one.
    pub pooler: Option<Pooler>,
}

impl Encoder {
    /// An encoder whose weights are all zero: a checkpoint or random values take their place.
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

    /// The last hidden state of each sequence's first token: `[sequences, hidden]`. The last layer
    /// computes no other row after its attention.
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

    /// Logits over the vocabulary from hidden states: `hidden Wᵀ`, `W` the word embeddings.
    pub(crate) fn vocabulary(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden.matmul(self.embeddings.word_embeddings.weight.val().transpose())
    }
}

pub(crate) fn layer_norm(config: &EncoderConfig, device: &Device) -> LayerNorm {
    LayerNorm::new(config.hidden_size, config.layer_norm_eps, device)
}
