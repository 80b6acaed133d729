//! The model family of GPT-2.

use burn::tensor::Device;

use super::config::{Gpt2Config, Gpt2Sizes, MODEL_TYPE};
use super::layout::{OUTPUT_MAP, WORD_EMBEDDINGS};
use super::model::Gpt2Lm;
use crate::error::ModelError;
use crate::families::causal::{CausalConfig, CausalLm, CausalModelConfig};
use crate::families::config_file::ConfigFile;
use crate::families::family::{CausalFamily, DefaultTargets, ModelFamily};
use crate::families::operations::OperationCounter;
use crate::families::sizes::{ModelSizes, PublishedModel};
use crate::files::checkpoint::Checkpoint;
use crate::files::weights::has_two_weights;

/// The model family of GPT-2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gpt2Family;

impl ModelFamily for Gpt2Family {
    fn model_types(&self) -> &[&'static str] {
        &[MODEL_TYPE]
    }

    fn causal(&self) -> Option<&dyn CausalFamily> {
        Some(self)
    }

    /// The targets of the paper's runs (arXiv 2403.07440).
    fn default_targets(&self) -> DefaultTargets {
        DefaultTargets {
            targets: "c_attn,c_fc",
            adalora: None,
            projections: Some("qkv"),
        }
    }

    /// The sizes of the smallest GPT-2, with 124 million parameters, and of the medium one, with 355 million.
    fn published(&self) -> &[PublishedModel] {
        const SMALL: ModelSizes = ModelSizes {
            vocab_size: 50_257,
            hidden_size: 768,
            layers: 12,
            heads: 12,
            key_value_heads: None,
            head_width: None,
            intermediate_size: None,
            max_tokens: 1024,
            end_of_text: Some(50_256),
        };
        const MODELS: [PublishedModel; 2] = [
            PublishedModel {
                name: "gpt2",
                model_type: MODEL_TYPE,
                sizes: SMALL,
            },
            PublishedModel {
                name: "gpt2-medium",
                model_type: MODEL_TYPE,
                sizes: ModelSizes {
                    hidden_size: 1024,
                    layers: 24,
                    heads: 16,
                    ..SMALL
                },
            },
        ];
        &MODELS
    }
}

impl CausalFamily for Gpt2Family {
    fn read(&self, file: &ConfigFile) -> Result<CausalConfig, ModelError> {
        Ok(CausalConfig::of(Gpt2Config::from_file(file)?))
    }

    fn with_sizes(
        &self,
        _model_type: &str,
        sizes: &ModelSizes,
    ) -> Result<CausalConfig, ModelError> {
        let last = sizes.vocab_size.saturating_sub(1);
        let config = Gpt2Config::new(Gpt2Sizes {
            vocab_size: sizes.vocab_size,
            n_embd: sizes.hidden_size,
            n_layer: sizes.layers,
            n_head: sizes.heads,
            n_positions: sizes.max_tokens,
            end_of_text: sizes.end_of_text.unwrap_or(last as u32),
        })?;
        Ok(CausalConfig::of(
            config.with_inner(sizes.intermediate_size)?,
        ))
    }
}

impl CausalModelConfig for Gpt2Config {
    fn end_of_text(&self) -> u32 {
        self.eos_token_id
    }

    fn empty(
        &self,
        checkpoint: Option<&Checkpoint>,
        device: &Device,
    ) -> Result<CausalLm, ModelError> {
        let has_own_map = match checkpoint {
            Some(checkpoint) => has_two_weights(checkpoint, self, WORD_EMBEDDINGS, OUTPUT_MAP)?,
            None => false,
        };
        let tied = self.tie_word_embeddings && !has_own_map;
        Ok(CausalLm::new(Gpt2Lm::empty(self, tied, device)))
    }

    fn with_tied_output_map(&self, tied: bool) -> CausalConfig {
        let mut config = self.clone();
        config.tie_word_embeddings = tied;
        CausalConfig::of(config)
    }

    fn count_layers(&self, counter: &mut dyn OperationCounter, tokens: f64, pairs: f64) -> bool {
        let [width, inner] = [self.n_embd, self.n_inner];
        let mut tracked = false;
        for table in ["transformer.wte", "transformer.wpe"] {
            tracked |= counter.embedding(table, tokens);
        }
        for block in 0..self.n_layer {
            let at = |module: &str| format!("transformer.h.{block}.{module}");
            let fused = counter.linear(&at("attn.c_attn"), tokens, [width, 3 * width], tracked);
            let context = counter.attention(pairs, width, [fused; 3]);
            let output = counter.linear(&at("attn.c_proj"), tokens, [width, width], context);
            tracked |= output;
            let wide = counter.linear(&at("mlp.c_fc"), tokens, [width, inner], tracked);
            tracked |= counter.linear(&at("mlp.c_proj"), tokens, [inner, width], wide);
        }
        tracked
    }

    /// The output map is the token embedding unless the model has a separate one.
    fn count_output_map(&self, counter: &mut dyn OperationCounter, rows: f64, tracked: bool) {
        let map = [self.n_embd, self.vocab_size];
        let is_apart = !self.tie_word_embeddings || counter.trains("lm_head");
        let module = if is_apart {
            "lm_head"
        } else {
            "transformer.wte"
        };
        counter.linear(module, rows, map, tracked);
    }
}
