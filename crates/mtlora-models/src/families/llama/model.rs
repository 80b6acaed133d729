//! The layers of Llama-style decoders. The fields are named like Hugging Face's modules, so that paths end as users of PEFT
//! expect: `q_proj`, `v_proj`, `gate_proj`.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};
use mtlora_core::{ActivationDtype, adapted_embedding, adapted_linear};

use super::config::LlamaConfig;
use crate::families::causal::CausalModel;
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, Projections};
use crate::layers::attention_context::AttentionContext;
use crate::layers::feed_forward::widen_gated;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::weights::{zero_embedding, zero_linear, zero_linear_without_bias};

/// Causal self-attention whose heads of key and value may be shared.
#[derive(Module, Debug)]
pub struct DecoderAttention {
    /// `[hidden_size, num_attention_heads * head_dim]`
    pub q_proj: Linear,
    /// `[hidden_size, num_key_value_heads * head_dim]`
    pub k_proj: Linear,
    /// `[hidden_size, num_key_value_heads * head_dim]`
    pub v_proj: Linear,
    /// `[num_attention_heads * head_dim, hidden_size]`
    pub o_proj: Linear,
    /// The norm of each head of the query, in architectures that have one.
    pub q_norm: Option<RmsNorm>,
    /// The norm of each head of the key, in architectures that have one.
    pub k_norm: Option<RmsNorm>,
    /// Dropout of the attention probabilities.
    pub attention_dropout: Dropout,
    /// The heads, their positions and what a token sees.
    #[module(skip)]
    pub attention: Attention,
}

impl DecoderAttention {
    fn new(config: &LlamaConfig, attention: Attention, device: &Device) -> Self {
        let heads = [config.num_attention_heads, config.num_key_value_heads];
        let [query, key] = heads.map(|heads| heads * config.head_dim);
        let hidden = config.hidden_size;
        let projection = |output| map(config.biases.projections, [hidden, output], device);
        let norm = || {
            let norm = || RmsNorm::new(config.head_dim, config.rms_norm_eps, device);
            config.normalises_heads().then(norm)
        };
        Self {
            q_proj: projection(query),
            k_proj: projection(key),
            v_proj: projection(key),
            o_proj: map(config.biases.output, [query, hidden], device),
            q_norm: norm(),
            k_norm: norm(),
            attention_dropout: DropoutConfig::new(config.attention_dropout).init(),
            attention,
        }
    }

    fn forward(&self, x: Tensor<2>, context: &mut dyn AttentionContext) -> Tensor<2> {
        let normed = |norm: &Option<RmsNorm>, x: Tensor<2>| match norm {
            Some(norm) => norm.forward_heads(x),
            None => x,
        };
        let query = normed(&self.q_norm, adapted_linear(&self.q_proj, x.clone()));
        let key = normed(&self.k_norm, adapted_linear(&self.k_proj, x.clone()));
        let value = adapted_linear(&self.v_proj, x);
        let attended = context.attend(
            &self.attention,
            Projections::Separate([query, key, value]),
            &self.attention_dropout,
            ActivationDtype::beside(&self.q_proj.weight),
        );
        adapted_linear(&self.o_proj, attended)
    }
}

/// A linear map whose values are zero.
fn map(biased: bool, [input, output]: [usize; 2], device: &Device) -> Linear {
    if biased {
        zero_linear(input, output, device)
    } else {
        zero_linear_without_bias(input, output, device)
    }
}

/// The gated feed-forward part of a layer.
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// `[hidden_size, intermediate_size]`
    pub gate_proj: Linear,
    /// `[hidden_size, intermediate_size]`
    pub up_proj: Linear,
    /// `[intermediate_size, hidden_size]`
    pub down_proj: Linear,
    /// The activation function of the gate.
    #[module(skip)]
    pub activation: Activation,
}

impl GatedMlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let wide = widen_gated([&self.gate_proj, &self.up_proj], self.activation, x);
        adapted_linear(&self.down_proj, wide)
    }
}

/// A layer with norms before attention and before the feed-forward part.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// The norm before attention.
    pub input_layernorm: RmsNorm,
    /// The attention.
    pub self_attn: DecoderAttention,
    /// The norm before the feed-forward part.
    pub post_attention_layernorm: RmsNorm,
    /// The feed-forward part.
    pub mlp: GatedMlp,
}

impl DecoderLayer {
    fn new(config: &LlamaConfig, attention: Attention, device: &Device) -> Self {
        let [hidden, inner] = [config.hidden_size, config.intermediate_size];
        let norm = || RmsNorm::new(hidden, config.rms_norm_eps, device);
        let map = |sides| map(config.biases.mlp, sides, device);
        Self {
            input_layernorm: norm(),
            self_attn: DecoderAttention::new(config, attention, device),
            post_attention_layernorm: norm(),
            mlp: GatedMlp {
                gate_proj: map([hidden, inner]),
                up_proj: map([hidden, inner]),
                down_proj: map([inner, hidden]),
                activation: config.hidden_act,
            },
        }
    }

    fn forward(&self, hidden: Tensor<2>, context: &mut dyn AttentionContext) -> Tensor<2> {
        let normed = self.input_layernorm.forward(hidden.clone());
        let hidden = hidden + self.self_attn.forward(normed, context);
        let normed = self.post_attention_layernorm.forward(hidden.clone());
        hidden + self.mlp.forward(normed)
    }
}

/// A decoder without its output map.
#[derive(Module, Debug)]
pub struct LlamaModel {
    /// The token embedding, which is also the output map unless that is separate: `[vocab_size, hidden_size]`.
    pub embed_tokens: Embedding,
    /// The layers, in order.
    pub layers: Vec<DecoderLayer>,
    /// The final norm.
    pub norm: RmsNorm,
}

/// A decoder with its output map, `LlamaForCausalLM` and its relatives.
#[derive(Module, Debug)]
pub struct LlamaLm {
    /// The model without the output map.
    pub model: LlamaModel,
    /// The separate output map, with one row per token as in the embedding: `[vocab_size, hidden_size]`. `None` if the
    /// output map is the token embedding.
    pub lm_head: Option<Embedding>,
}

impl LlamaLm {
    /// A model whose values are all zero. It has a separate output map unless it is `tied`.
    pub(super) fn empty(config: &LlamaConfig, tied: bool, device: &Device) -> Self {
        let table = || zero_embedding(config.vocab_size, config.hidden_size, device);
        let layers = config.attentions.iter();
        Self {
            model: LlamaModel {
                embed_tokens: table(),
                layers: layers
                    .map(|attention| DecoderLayer::new(config, *attention, device))
                    .collect(),
                norm: RmsNorm::new(config.hidden_size, config.rms_norm_eps, device),
            },
            lm_head: (!tied).then(table),
        }
    }
}

impl CausalModel for LlamaLm {
    /// Positions come in with attention.
    fn embed(&self, ids: Tensor<1, Int>, _positions: Tensor<1, Int>) -> Tensor<2> {
        adapted_embedding(&self.model.embed_tokens, ids)
    }

    fn layers(&self) -> usize {
        self.model.layers.len()
    }

    fn layer(
        &self,
        index: usize,
        hidden: Tensor<2>,
        attention: &mut dyn AttentionContext,
    ) -> Tensor<2> {
        self.model.layers[index].forward(hidden, attention)
    }

    fn finish(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.model.norm.forward(hidden)
    }

    fn output_map(&self) -> Tensor<2> {
        let map = self.lm_head.as_ref().unwrap_or(&self.model.embed_tokens);
        map.weight.val()
    }

    fn ties_output_map(&self) -> bool {
        self.lm_head.is_none()
    }
}
