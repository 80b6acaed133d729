//! How llama.cpp has Llama-style decoders (`conversion/llama.py`, `mistral.py` and `qwen.py` in its sources).

use super::config::LlamaConfig;
use crate::families::causal::{LlamaCppDescription, LlamaCppLayout};
use crate::gguf::GgufValue;
use crate::gguf::names::llama_cpp_name;
use crate::layers::activation::Activation;
use crate::layers::attention::PositionScheme;
use crate::layers::rotary::{Rotary, RotaryScaling, YarnScaling};

impl LlamaCppLayout for LlamaConfig {
    /// A Mistral is a `llama` there.
    fn architecture(&self) -> &'static str {
        match self.architecture.model_type {
            "mistral" => "llama",
            other => other,
        }
    }

    fn tensor_name(&self, name: &str) -> Option<String> {
        llama_cpp_name(name)
    }

    fn paired_heads(&self, module: &str) -> Option<usize> {
        let is_turned = ["q_proj", "k_proj"].iter().any(|end| module.ends_with(end));
        let turns_neighbours = ["llama", "smollm3"].contains(&LlamaCppLayout::architecture(self));
        (is_turned && turns_neighbours).then_some(self.head_dim)
    }

    fn description(&self) -> Result<LlamaCppDescription, String> {
        let architecture = LlamaCppLayout::architecture(self);
        if architecture == "smollm3" {
            return Err(
                "is a smollm3, which is not written here; merge without --gguf".to_string(),
            );
        }
        if self.hidden_act != Activation::Silu {
            return Err("has another activation than silu, which llama.cpp computes".to_string());
        }
        let mut rotary = Rotary::new(1e4);
        for attention in &self.attentions {
            let spec = attention.spec();
            let window = spec
                .window
                .filter(|window| *window < self.max_position_embeddings);
            if let Some(window) = window {
                return Err(format!(
                    "has a sliding window of {window} tokens, which llama.cpp's `{architecture}` does not have"
                ));
            }
            match spec.positions {
                PositionScheme::Rotary(found) => rotary = found,
                PositionScheme::InHiddenStates => {
                    return Err(format!(
                        "has layers without positions, which llama.cpp's `{architecture}` does not have"
                    ));
                }
            }
        }
        let mut described = LlamaCppDescription::default();
        let mut add = |name: &str, value: GgufValue| {
            described
                .fields
                .push((format!("{architecture}.{name}"), value));
        };
        for (name, size) in [
            ("vocab_size", self.vocab_size),
            ("context_length", self.max_position_embeddings),
            ("embedding_length", self.hidden_size),
            ("block_count", self.num_hidden_layers),
            ("feed_forward_length", self.intermediate_size),
            ("attention.head_count", self.num_attention_heads),
            ("attention.head_count_kv", self.num_key_value_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("rope.dimension_count", self.head_dim),
        ] {
            let size = u32::try_from(size)
                .map_err(|_| format!("has a {name} of {size}, which is too large"))?;
            add(name, GgufValue::U32(size));
        }
        for (name, value) in [
            ("attention.layer_norm_rms_epsilon", self.rms_norm_eps),
            ("rope.freq_base", rotary.theta),
        ] {
            add(name, GgufValue::F32(value as f32));
        }
        let text = |value: &str| GgufValue::Text(value.to_string());
        match rotary.scaling {
            RotaryScaling::None => (),
            RotaryScaling::Linear(factor) => {
                add("rope.scaling.type", text("linear"));
                add("rope.scaling.factor", GgufValue::F32(factor as f32));
            }
            RotaryScaling::Yarn(scaling) => {
                let usual = YarnScaling {
                    beta_fast: 32.0,
                    beta_slow: 1.0,
                    truncate: true,
                    attention_factor: 0.1 * scaling.factor.ln() + 1.0,
                    ..scaling
                };
                if (scaling.attention_factor - usual.attention_factor).abs() > 1e-6
                    || scaling
                        != (YarnScaling {
                            attention_factor: scaling.attention_factor,
                            ..usual
                        })
                {
                    return Err(
                        "has YaRN with settings of its own, which are not written here".to_string(),
                    );
                }
                let original = scaling.original_max_position_embeddings as u32;
                add("rope.scaling.type", text("yarn"));
                add("rope.scaling.factor", GgufValue::F32(scaling.factor as f32));
                add(
                    "rope.scaling.original_context_length",
                    GgufValue::U32(original),
                );
            }
            RotaryScaling::Llama3(scaling) => {
                let plain = (0..self.head_dim / 2)
                    .map(|pair| rotary.theta.powf(-2.0 * pair as f64 / self.head_dim as f64));
                let factors = plain.map(|angle| (angle / scaling.scaled(angle)) as f32);
                described
                    .tensors
                    .push(("rope_freqs.weight".to_string(), factors.collect()));
            }
        }
        Ok(described)
    }
}
