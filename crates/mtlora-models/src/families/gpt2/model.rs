//! The layers of GPT-2. The fields are named like Hugging Face's modules, so that paths end as users of PEFT expect:
//! `c_attn`, `c_proj`, `c_fc`.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};
use mtlora_core::{ActivationDtype, FusedProjections, adapted_embedding, adapted_linear, dropout};

use super::config::Gpt2Config;
use crate::families::causal::CausalModel;
use crate::layers::activation::Activation;
use crate::layers::attention::{self, Projections};
use crate::layers::attention_context::AttentionContext;
use crate::layers::feed_forward::widen;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::weights::{zero_embedding, zero_linear};

/// Causal self-attention.
#[derive(Module, Debug)]
pub struct Attention {
    /// The projections of query, key and value in one weight: `[n_embd, 3 n_embd]`.
    pub c_attn: Linear,
    /// The output projection: `[n_embd, n_embd]`.
    pub c_proj: Linear,
    /// Dropout of the attention probabilities.
    pub attn_dropout: Dropout,
    /// Dropout of the output.
    pub resid_dropout: Dropout,
    /// The heads and their width.
    #[module(skip)]
    pub attention: attention::Attention,
}

impl Attention {
    fn output(&self, context: Tensor<2>) -> Tensor<2> {
        dropout(&self.resid_dropout, adapted_linear(&self.c_proj, context))
    }
}

/// The feed-forward part of a block.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[n_embd, n_inner]`
    pub c_fc: Linear,
    /// `[n_inner, n_embd]`
    pub c_proj: Linear,
    /// Dropout of the output.
    pub dropout: Dropout,
    /// The activation function.
    #[module(skip)]
    pub activation: Activation,
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let wide = widen(&self.c_fc, self.activation, x);
        dropout(&self.dropout, adapted_linear(&self.c_proj, wide))
    }
}

/// A transformer block with layer norms before attention and before the feed-forward part.
#[derive(Module, Debug)]
pub struct Block {
    /// The layer norm before attention.
    pub ln_1: LayerNorm,
    /// The attention.
    pub attn: Attention,
    /// The layer norm before the feed-forward part.
    pub ln_2: LayerNorm,
    /// The feed-forward part.
    pub mlp: Mlp,
}

impl Block {
    fn new(config: &Gpt2Config, device: &Device) -> Self {
        let width = config.n_embd;
        let norm = || LayerNorm::new(width, config.layer_norm_epsilon, device);
        let drop = |probability| DropoutConfig::new(probability).init();
        Self {
            ln_1: norm(),
            attn: Attention {
                c_attn: zero_linear(width, 3 * width, device),
                c_proj: zero_linear(width, width, device),
                attn_dropout: drop(config.attn_pdrop),
                resid_dropout: drop(config.resid_pdrop),
                attention: config.attention,
            },
            ln_2: norm(),
            mlp: Mlp {
                c_fc: zero_linear(width, config.n_inner, device),
                c_proj: zero_linear(config.n_inner, width, device),
                dropout: drop(config.resid_pdrop),
                activation: config.activation_function,
            },
        }
    }

    fn forward(&self, hidden: Tensor<2>, attention: &mut dyn AttentionContext) -> Tensor<2> {
        let Attention {
            c_attn,
            attn_dropout,
            ..
        } = &self.attn;
        let fused = adapted_linear(c_attn, self.ln_1.forward(hidden.clone()));
        let context = attention.attend(
            &self.attn.attention,
            Projections::Fused(fused),
            attn_dropout,
            ActivationDtype::beside(&c_attn.weight),
        );
        let hidden = hidden + self.attn.output(context);
        let added = self.mlp.forward(self.ln_2.forward(hidden.clone()));
        hidden + added
    }
}

/// GPT-2 without its output map.
#[derive(Module, Debug)]
pub struct Gpt2 {
    /// The token embedding, which is also the output map unless that is separate: `[vocab_size, n_embd]`.
    pub wte: Embedding,
    /// The position embedding: `[n_positions, n_embd]`.
    pub wpe: Embedding,
    /// Dropout of the sum of both embeddings.
    pub drop: Dropout,
    /// The blocks, in order.
    pub h: Vec<Block>,
    /// The final layer norm.
    pub ln_f: LayerNorm,
}

impl Gpt2 {
    fn new(config: &Gpt2Config, device: &Device) -> Self {
        Self {
            wte: zero_embedding(config.vocab_size, config.n_embd, device),
            wpe: zero_embedding(config.n_positions, config.n_embd, device),
            drop: DropoutConfig::new(config.embd_pdrop).init(),
            h: (0..config.n_layer)
                .map(|_| Block::new(config, device))
                .collect(),
            ln_f: LayerNorm::new(config.n_embd, config.layer_norm_epsilon, device),
        }
    }
}

/// GPT-2 with its output map: `GPT2LMHeadModel`.
#[derive(Module, Debug)]
pub struct Gpt2Lm {
    /// The model without the output map, named `transformer` in checkpoints.
    pub transformer: Gpt2,
    /// The separate output map, with one row per token as in the embedding: `[vocab_size, n_embd]`. `None` if the
    /// output map is the token embedding.
    pub lm_head: Option<Embedding>,
}

impl Gpt2Lm {
    /// A model whose values are all zero. It has a separate output map unless it is `tied`.
    pub(super) fn empty(config: &Gpt2Config, tied: bool, device: &Device) -> Self {
        Self {
            transformer: Gpt2::new(config, device),
            lm_head: (!tied).then(|| zero_embedding(config.vocab_size, config.n_embd, device)),
        }
    }
}

impl CausalModel for Gpt2Lm {
    fn embed(&self, ids: Tensor<1, Int>, positions: Tensor<1, Int>) -> Tensor<2> {
        let words = adapted_embedding(&self.transformer.wte, ids);
        let positions = adapted_embedding(&self.transformer.wpe, positions);
        dropout(&self.transformer.drop, words + positions)
    }

    fn layers(&self) -> usize {
        self.transformer.h.len()
    }

    fn layer(
        &self,
        index: usize,
        hidden: Tensor<2>,
        attention: &mut dyn AttentionContext,
    ) -> Tensor<2> {
        self.transformer.h[index].forward(hidden, attention)
    }

    fn finish(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.transformer.ln_f.forward(hidden)
    }

    fn output_map(&self) -> Tensor<2> {
        let map = self.lm_head.as_ref().unwrap_or(&self.transformer.wte);
        map.weight.val()
    }

    fn ties_output_map(&self) -> bool {
        self.lm_head.is_none()
    }
}

/// The fused projections of GPT-2's `c_attn`, of which those in `which` are adapted, as letters of `qkv`. `None` if
/// `which` is empty or has another letter.
pub fn fused_projections(which: &str) -> Option<FusedProjections> {
    let known = !which.is_empty() && which.chars().all(|letter| "qkv".contains(letter));
    known.then(|| FusedProjections {
        module: "c_attn".to_string(),
        adapted: "qkv".chars().map(|letter| which.contains(letter)).collect(),
    })
}
