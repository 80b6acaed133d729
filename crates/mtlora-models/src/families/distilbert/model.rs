//! DistilBERT's encoder on packed batches.
//!
//! The fields are named like Hugging Face's modules, so that paths end as users of PEFT expect: `q_lin`, `v_lin`, `out_lin`,
//! `ffn.lin1`, ...

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::{Device, Tensor};
use mtlora_core::{ActivationDtype, SequenceOffsets, adapted_embedding, adapted_linear, dropout};

use super::config::{DistilBertConfig, EPSILON};
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, Projections};
use crate::layers::feed_forward::widen;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::weights::{zero_embedding, zero_linear};
use crate::packed_batch::PackedBatch;

/// The sum of token and position embeddings, followed by a layer norm and dropout.
#[derive(Module, Debug)]
pub struct DistilBertEmbeddings {
    /// `[vocab_size, dim]`
    pub word_embeddings: Embedding,
    /// `[max_position_embeddings, dim]`
    pub position_embeddings: Embedding,
    /// The layer norm over the hidden size.
    pub layer_norm: LayerNorm,
    /// Dropout after the layer norm.
    pub dropout: Dropout,
}

impl DistilBertEmbeddings {
    fn forward(&self, batch: &PackedBatch) -> Tensor<2> {
        let words = adapted_embedding(&self.word_embeddings, batch.ids.clone());
        let positions = adapted_embedding(&self.position_embeddings, batch.positions.clone());
        dropout(&self.dropout, self.layer_norm.forward(words + positions))
    }
}

/// Attention within each sequence, with its four maps.
#[derive(Module, Debug)]
pub struct DistilBertAttention {
    /// `[dim, dim]`
    pub q_lin: Linear,
    /// `[dim, dim]`
    pub k_lin: Linear,
    /// `[dim, dim]`
    pub v_lin: Linear,
    /// The output projection: `[dim, dim]`.
    pub out_lin: Linear,
    /// Dropout of the attention probabilities.
    pub dropout: Dropout,
    /// The heads and their width.
    #[module(skip)]
    pub attention: Attention,
}

/// The feed-forward part.
#[derive(Module, Debug)]
pub struct DistilBertFeedForward {
    /// `[dim, hidden_dim]`
    pub lin1: Linear,
    /// `[hidden_dim, dim]`
    pub lin2: Linear,
    /// Dropout of the output.
    pub dropout: Dropout,
    /// The activation function between the two maps.
    #[module(skip)]
    pub activation: Activation,
}

/// One transformer layer.
#[derive(Module, Debug)]
pub struct DistilBertLayer {
    /// The attention within each sequence.
    pub attention: DistilBertAttention,
    /// The norm after attention and its residual connection.
    pub sa_layer_norm: LayerNorm,
    /// The feed-forward part.
    pub ffn: DistilBertFeedForward,
    /// The norm after the feed-forward part and its residual connection.
    pub output_layer_norm: LayerNorm,
}

impl DistilBertLayer {
    fn new(config: &DistilBertConfig, device: &Device) -> Self {
        let [dim, inner] = [config.dim, config.hidden_dim];
        let map = || zero_linear(dim, dim, device);
        Self {
            attention: DistilBertAttention {
                q_lin: map(),
                k_lin: map(),
                v_lin: map(),
                out_lin: map(),
                dropout: DropoutConfig::new(config.attention_dropout).init(),
                attention: config.attention,
            },
            sa_layer_norm: layer_norm(config, device),
            ffn: DistilBertFeedForward {
                lin1: zero_linear(dim, inner, device),
                lin2: zero_linear(inner, dim, device),
                dropout: DropoutConfig::new(config.dropout).init(),
                activation: config.activation,
            },
            output_layer_norm: layer_norm(config, device),
        }
    }

    /// What the tokens of each sequence gather, before the output projection: `[tokens, dim]`.
    fn context(&self, hidden: Tensor<2>, offsets: &SequenceOffsets) -> Tensor<2> {
        let own = &self.attention;
        let query = adapted_linear(&own.q_lin, hidden.clone());
        let key = adapted_linear(&own.k_lin, hidden.clone());
        let value = adapted_linear(&own.v_lin, hidden);
        let inputs = Projections::Separate([query, key, value]);
        let saved = ActivationDtype::beside(&own.q_lin.weight);
        own.attention
            .over_batch(inputs, offsets, &own.dropout, saved)
    }

    fn forward(&self, hidden: Tensor<2>, offsets: &SequenceOffsets) -> Tensor<2> {
        let context = self.context(hidden.clone(), offsets);
        self.feed_forward(context, hidden)
    }

    /// Computes only the rows `starts`, the first tokens, which are all that a classifier needs of the last layer.
    fn forward_first(&self, hidden: Tensor<2>, batch: &PackedBatch) -> Tensor<2> {
        let context = self.context(hidden.clone(), &batch.offsets);
        self.feed_forward(
            context.select(0, batch.starts.clone()),
            hidden.select(0, batch.starts.clone()),
        )
    }

    fn feed_forward(&self, context: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        let attended = adapted_linear(&self.attention.out_lin, context);
        let attended = self.sa_layer_norm.forward(attended + residual);
        let wide = widen(&self.ffn.lin1, self.ffn.activation, attended.clone());
        let output = dropout(&self.ffn.dropout, adapted_linear(&self.ffn.lin2, wide));
        self.output_layer_norm.forward(output + attended)
    }
}

/// The layers of the encoder.
#[derive(Module, Debug)]
pub struct DistilBertLayers {
    /// The layers, in order.
    pub layer: Vec<DistilBertLayer>,
}

/// DistilBERT without a head.
#[derive(Module, Debug)]
pub struct DistilBertEncoder {
    /// The embeddings.
    pub embeddings: DistilBertEmbeddings,
    /// The layers.
    pub transformer: DistilBertLayers,
}

impl DistilBertEncoder {
    /// An encoder whose weights are all zero, for a checkpoint or random values to replace.
    pub(super) fn new(config: &DistilBertConfig, device: &Device) -> Self {
        let layers = 0..config.n_layers;
        Self {
            embeddings: DistilBertEmbeddings {
                word_embeddings: zero_embedding(config.vocab_size, config.dim, device),
                position_embeddings: zero_embedding(
                    config.max_position_embeddings,
                    config.dim,
                    device,
                ),
                layer_norm: layer_norm(config, device),
                dropout: DropoutConfig::new(config.dropout).init(),
            },
            transformer: DistilBertLayers {
                layer: layers
                    .map(|_| DistilBertLayer::new(config, device))
                    .collect(),
            },
        }
    }

    /// The embeddings and the hidden states after each layer: each `[tokens, dim]`.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Vec<Tensor<2>> {
        let mut states = vec![self.embeddings.forward(batch)];
        for (index, layer) in self.transformer.layer.iter().enumerate() {
            states.push(layer.forward(states[index].clone(), &batch.offsets));
        }
        states
    }

    /// The last hidden state of each sequence's first token: `[sequences, dim]`. After its attention the last layer computes
    /// only these rows.
    pub fn first_tokens(&self, batch: &PackedBatch) -> Tensor<2> {
        let embedded = self.embeddings.forward(batch);
        let Some((last, layers)) = self.transformer.layer.split_last() else {
            return embedded.select(0, batch.starts.clone());
        };
        let hidden = layers.iter().fold(embedded, |hidden, layer| {
            layer.forward(hidden, &batch.offsets)
        });
        last.forward_first(hidden, batch)
    }
}

fn layer_norm(config: &DistilBertConfig, device: &Device) -> LayerNorm {
    LayerNorm::new(config.dim, EPSILON, device)
}
