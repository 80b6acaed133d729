use std::path::Path;

use burn::module::{Initializer, Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Int, Tensor};
use mtlora_core::{ActivationDtype, BaseDtype};

use crate::error::ModelError;
use crate::families::encoder::config::EncoderConfig;
use crate::families::encoder::model::{Encoder, layer_norm};
use crate::files::weights;
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
}

/// An encoder that guesses masked tokens: what pre-training trains.
#[derive(Module, Debug)]
pub struct MaskedLm {
    /// `roberta` in the checkpoint.
    pub base: Encoder,
    /// The head.
    pub lm_head: LmHead,
}

impl MaskedLm {
    /// A model with random weights.
    pub fn fresh(config: &EncoderConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        let model = Self {
            base: Encoder::new(config, device),
            lm_head: LmHead {
                dense: zero_linear(config.hidden_size, config.hidden_size, device),
                layer_norm: layer_norm(config, device),
                bias: Initializer::Zeros.init([config.vocab_size], device),
            },
        };
        weights::fresh(model, config, seed, |_| BaseDtype::F32)
    }

    /// Logits over the vocabulary at `places` of the strip: `[places, vocab_size]`.
    pub fn forward(
        &self,
        strip: &PackedBatch,
        places: Tensor<1, Int>,
        config: &EncoderConfig,
    ) -> Tensor<2> {
        let hidden = self.base.forward(strip).select(0, places);
        let hidden = self.lm_head.dense.forward(hidden);
        let hidden = config.hidden_act.forward(hidden, ActivationDtype::F32);
        let hidden = self.lm_head.layer_norm.forward(hidden);
        self.base.vocabulary(hidden) + self.lm_head.bias.val().unsqueeze()
    }

    /// Writes `model.safetensors` and `config.json` into `folder`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn save(self, folder: &Path, config: &EncoderConfig) -> Result<(), ModelError> {
        weights::write(self, folder, config)
    }
}
