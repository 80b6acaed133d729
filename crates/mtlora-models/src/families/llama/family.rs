//! The model family of Llama-style decoders.

use burn::tensor::Device;

use super::architecture::MODEL_TYPES;
use super::config::LlamaConfig;
use super::layout::{OUTPUT_MAP, WORD_EMBEDDINGS};
use super::model::LlamaLm;
use crate::error::ModelError;
use crate::families::causal::{CausalConfig, CausalLm, CausalModelConfig, LlamaCppLayout};
use crate::families::config_file::ConfigFile;
use crate::families::family::{CausalFamily, DefaultTargets, ModelFamily};
use crate::families::operations::OperationCounter;
use crate::families::sizes::{ModelSizes, PublishedModel};
use crate::files::checkpoint::Checkpoint;
use crate::files::weights::has_two_weights;

/// The model family of Llama-style decoders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LlamaFamily;

impl ModelFamily for LlamaFamily {
    fn model_types(&self) -> &[&'static str] {
        &MODEL_TYPES
    }

    fn causal(&self) -> Option<&dyn CausalFamily> {
        Some(self)
    }

    /// PEFT's targets for these models, which has none for `smollm3`.
    fn default_targets(&self) -> DefaultTargets {
        DefaultTargets {
            targets: "q_proj,v_proj",
            adalora: None,
            projections: None,
        }
    }

    /// The sizes in the config.json of each model on the Hub.
    fn published(&self) -> &[PublishedModel] {
        const MODELS: [PublishedModel; 4] = [
            PublishedModel {
                name: "smollm2-135m",
                model_type: "llama",
                sizes: ModelSizes {
                    vocab_size: 49_152,
                    hidden_size: 576,
                    layers: 30,
                    heads: 9,
                    key_value_heads: Some(3),
                    head_width: Some(64),
                    intermediate_size: Some(1536),
                    max_tokens: 8192,
                    end_of_text: Some(2),
                },
            },
            PublishedModel {
                name: "qwen3-0.6b",
                model_type: "qwen3",
                sizes: ModelSizes {
                    vocab_size: 151_936,
                    hidden_size: 1024,
                    layers: 28,
                    heads: 16,
                    key_value_heads: Some(8),
                    head_width: Some(128),
                    intermediate_size: Some(3072),
                    max_tokens: 40_960,
                    end_of_text: Some(151_645),
                },
            },
            PublishedModel {
                name: "qwen3-1.7b",
                model_type: "qwen3",
                sizes: ModelSizes {
                    vocab_size: 151_936,
                    hidden_size: 2048,
                    layers: 28,
                    heads: 16,
                    key_value_heads: Some(8),
                    head_width: Some(128),
                    intermediate_size: Some(6144),
                    max_tokens: 40_960,
                    end_of_text: Some(151_645),
                },
            },
            PublishedModel {
                name: "llama-3.2-1b",
                model_type: "llama",
                sizes: ModelSizes {
                    vocab_size: 128_256,
                    hidden_size: 2048,
                    layers: 16,
                    heads: 32,
                    key_value_heads: Some(8),
                    head_width: Some(64),
                    intermediate_size: Some(8192),
                    max_tokens: 131_072,
                    end_of_text: Some(128_001),
                },
            },
        ];
        &MODELS
    }
}

impl CausalFamily for LlamaFamily {
    fn read(&self, file: &ConfigFile) -> Result<CausalConfig, ModelError> {
        Ok(CausalConfig::of(LlamaConfig::from_file(file)?))
    }

    fn with_sizes(&self, model_type: &str, sizes: &ModelSizes) -> Result<CausalConfig, ModelError> {
        Ok(CausalConfig::of(LlamaConfig::new(model_type, sizes)?))
    }
}

impl CausalModelConfig for LlamaConfig {
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
        Ok(CausalLm::new(LlamaLm::empty(self, tied, device)))
    }

    fn with_tied_output_map(&self, tied: bool) -> CausalConfig {
        let mut config = self.clone();
        config.tie_word_embeddings = tied;
        CausalConfig::of(config)
    }

    /// Where a token sees only the last ones, `pairs` counts too many.
    fn count_layers(&self, counter: &mut dyn OperationCounter, tokens: f64, pairs: f64) -> bool {
        let [width, inner] = [self.hidden_size, self.intermediate_size];
        let heads = [self.num_attention_heads, self.num_key_value_heads];
        let [query, key] = heads.map(|heads| heads * self.head_dim);
        let mut tracked = counter.embedding("model.embed_tokens", tokens);
        for layer in 0..self.num_hidden_layers {
            let at = |module: &str| format!("model.layers.{layer}.{module}");
            let projections = [("q_proj", query), ("k_proj", key), ("v_proj", key)];
            let projections = projections.map(|(name, output)| {
                let module = at(&format!("self_attn.{name}"));
                counter.linear(&module, tokens, [width, output], tracked)
            });
            let context = counter.attention(pairs, query, projections);
            let output = at("self_attn.o_proj");
            tracked |= counter.linear(&output, tokens, [query, width], context);
            let [gate, up] = ["mlp.gate_proj", "mlp.up_proj"]
                .map(|name| counter.linear(&at(name), tokens, [width, inner], tracked));
            tracked |= counter.linear(&at("mlp.down_proj"), tokens, [inner, width], gate | up);
        }
        tracked
    }

    /// The output map is the token embedding unless the model has a separate one.
    fn count_output_map(&self, counter: &mut dyn OperationCounter, rows: f64, tracked: bool) {
        let map = [self.hidden_size, self.vocab_size];
        let is_apart = !self.tie_word_embeddings || counter.trains("lm_head");
        let module = if is_apart {
            "lm_head"
        } else {
            "model.embed_tokens"
        };
        counter.linear(module, rows, map, tracked);
    }
    fn llama_cpp(&self) -> Option<&dyn LlamaCppLayout> {
        Some(self)
    }
}
