use burn::module::{Initializer, Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Int, Tensor};
use mtlora_core::ActivationDtype;

use super::config::EncoderConfig;
use super::model::{Encoder, layer_norm};
use crate::families::masked_lm::MaskedLmModel;
use crate::layers::activation::Activation;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::weights::zero_linear;
use crate::packed_batch::PackedBatch;

/// The head of `RobertaForMaskedLM`; its last map is the word embeddings.
#[derive(Module, Debug)]
pub struct LmHead {
    /// `[hidden, hidden]`
    pub dense: Linear,
    /// Over `hidden`.
    pub layer_norm: LayerNorm,
    /// `[vocab_size]`
    pub bias: Param<Tensor<1>>,
    /// The nonlinearity after the first map.
    #[module(skip)]
    pub activation: Activation,
}

/// An encoder that predicts masked tokens.
#[derive(Module, Debug)]
pub struct EncoderMaskedLm {
    /// `roberta` in the checkpoint.
    pub base: Encoder,
    /// The head.
    pub lm_head: LmHead,
}

impl EncoderMaskedLm {
    /// A model whose values are all zero.
    pub(super) fn empty(config: &EncoderConfig, device: &Device) -> Self {
        Self {
            base: Encoder::new(config, device),
            lm_head: LmHead {
                dense: zero_linear(config.hidden_size, config.hidden_size, device),
                layer_norm: layer_norm(config, device),
                bias: Initializer::Zeros.init([config.vocab_size], device),
                activation: config.hidden_act,
            },
        }
    }
}

impl MaskedLmModel for EncoderMaskedLm {
    fn logits(&self, batch: &PackedBatch, places: Tensor<1, Int>) -> Tensor<2> {
        let hidden = self.base.forward(batch).select(0, places);
        let hidden = self.lm_head.dense.forward(hidden);
        let hidden = self
            .lm_head
            .activation
            .forward(hidden, ActivationDtype::F32);
        let hidden = self.lm_head.layer_norm.forward(hidden);
        self.base.vocabulary(hidden) + self.lm_head.bias.val().unsqueeze()
    }
}
