//! The configuration and the tensors of a decoder in a GGUF file, by Hugging Face's names.

use serde_json::{Map, Value, json};

use super::error::GgufError;
use super::file::{GgufFile, TensorInfo};
use super::names::hugging_face_name;
use super::rows::with_halves;
use crate::layers::rotary::Llama3Scaling;

/// The architectures that are converted: GGUF's names are those of Hugging Face's `model_type`.
const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];
/// The tensor in which llama.cpp keeps what Llama 3's positions are divided by.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// A decoder as the metadata describes it.
pub(super) struct Decoder<'a> {
    file: &'a GgufFile,
    architecture: &'static str,
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn of(file: &'a GgufFile) -> Result<Self, GgufError> {
        let field = "general.architecture";
        let found = file.text(field)?;
        let known = ARCHITECTURES.into_iter().find(|known| *known == found);
        let Some(architecture) = known else {
            return Err(GgufError::unknown(&file.path, field, found, &ARCHITECTURES));
        };
        let own = |field: &str| format!("{architecture}.{field}");
        let heads = file.size(&own("attention.head_count"))?;
        let key_value_heads = file.size_if_there(&own("attention.head_count_kv"))?;
        let width = file.size(&own("embedding_length"))?;
        let head_dim = match file.size_if_there(&own("attention.key_length"))? {
            Some(width) => width,
            None => width.checked_div(heads).unwrap_or(0),
        };
        let decoder = Self {
            file,
            architecture,
            heads,
            key_value_heads: key_value_heads.unwrap_or(heads),
            head_dim,
        };
        decoder.refuse_variants()?;
        Ok(decoder)
    }

    fn own(&self, field: &str) -> String {
        format!("{}.{field}", self.architecture)
    }

    /// Refuses what would quietly give other numbers.
    fn refuse_variants(&self) -> Result<(), GgufError> {
        let whole = self.head_dim as f64;
        for (field, plain) in [
            ("attention.sliding_window", 0.0),
            ("expert_count", 0.0),
            ("logit_scale", 1.0),
            ("attention.scale", 1.0 / whole.sqrt()),
            ("attention.value_length", whole),
            ("rope.dimension_count", whole),
            ("rope.scale_linear", 1.0),
            ("rope.scaling.attn_factor", 1.0),
            ("rope.scaling.alpha", 0.0),
        ] {
            let field = self.own(field);
            let found = self.file.number_if_there(&field)?.unwrap_or(plain);
            if (found - plain).abs() > 1e-6 {
                let message = format!(
                    "is {found}, but only {plain} is supported; use the original model's folder"
                );
                return Err(GgufError::field(&self.file.path, &field, message));
            }
        }
        Ok(())
    }

    /// The fields of its config.json.
    pub(super) fn config(&self) -> Result<Map<String, Value>, GgufError> {
        let file = self.file;
        let size = |field: &str| file.size(&self.own(field));
        let table = file.tensors.get("token_embd.weight");
        let Some(&[vocab_size, _]) = table.map(|info| info.shape.as_slice()) else {
            let message = "is missing or is no matrix; download the file again";
            return Err(GgufError::tensor(&file.path, "token_embd.weight", message));
        };
        let has = |name: &str| file.tensors.contains_key(name);
        let mut map = Map::new();
        for (field, value) in [
            ("attention_bias", json!(has("blk.0.attn_output.bias"))),
            ("head_dim", json!(self.head_dim)),
            ("hidden_act", json!("silu")),
            ("hidden_size", json!(size("embedding_length")?)),
            ("intermediate_size", json!(size("feed_forward_length")?)),
            ("max_position_embeddings", json!(size("context_length")?)),
            ("mlp_bias", json!(has("blk.0.ffn_up.bias"))),
            ("model_type", json!(self.architecture)),
            ("num_attention_heads", json!(self.heads)),
            ("num_hidden_layers", json!(size("block_count")?)),
            ("num_key_value_heads", json!(self.key_value_heads)),
            (
                "rms_norm_eps",
                json!(file.number(&self.own("attention.layer_norm_rms_epsilon"))?),
            ),
            ("rope_scaling", self.scaling()?),
            (
                "rope_theta",
                json!(
                    file.number_if_there(&self.own("rope.freq_base"))?
                        .unwrap_or(1e4)
                ),
            ),
            ("tie_word_embeddings", json!(!has("output.weight"))),
            ("torch_dtype", json!("float32")),
            ("vocab_size", json!(vocab_size)),
        ] {
            map.insert(field.to_string(), value);
        }
        for name in ["bos", "eos", "padding"] {
            if let Some(id) = file.size_if_there(&format!("tokenizer.ggml.{name}_token_id"))? {
                let name = if name == "padding" { "pad" } else { name };
                map.insert(format!("{name}_token_id"), json!(id));
            }
        }
        Ok(map)
    }

    /// `rope_scaling` of the config.json.
    fn scaling(&self) -> Result<Value, GgufError> {
        let file = self.file;
        let field = self.own("rope.scaling.type");
        let named = file.text_if_there(&field)?;
        if let Some(info) = file.tensors.get(ROPE_FACTORS) {
            if let Some(other) = named.filter(|kind| *kind != "none") {
                return Err(GgufError::unknown(&file.path, &field, other, &["none"]));
            }
            return self.llama3(&file.read(ROPE_FACTORS, info)?);
        }
        let factor = || file.number(&self.own("rope.scaling.factor"));
        // As in llama.cpp, a factor without a kind is a linear one.
        let scaled = file
            .number_if_there(&self.own("rope.scaling.factor"))?
            .is_some_and(|factor| factor != 0.0 && factor != 1.0);
        let kind = named.unwrap_or(if scaled { "linear" } else { "none" });
        Ok(match kind {
            "none" => Value::Null,
            "linear" => json!({"rope_type": "linear", "factor": factor()?}),
            "yarn" => json!({
                "rope_type": "yarn",
                "factor": factor()?,
                "original_max_position_embeddings": file.size(&self.own("rope.scaling.original_context_length"))?,
            }),
            other => {
                let known = ["none", "linear", "yarn"];
                return Err(GgufError::unknown(&file.path, &field, other, &known));
            }
        })
    }

    /// The scaling of Llama 3.1 and later, of which the file has what each angle is divided by: with the settings of all
    /// published models, of which only the factor differs.
    fn llama3(&self, factors: &[f32]) -> Result<Value, GgufError> {
        let largest = factors.iter().copied().fold(1.0, f32::max);
        let scaling = Llama3Scaling {
            factor: f64::from(largest),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let theta = self.file.number(&self.own("rope.freq_base"))?;
        let agrees = factors.iter().enumerate().all(|(pair, factor)| {
            let angle = theta.powf(-2.0 * pair as f64 / self.head_dim as f64);
            let expected = angle / scaling.scaled(angle);
            (f64::from(*factor) - expected).abs() < 1e-3 * expected
        });
        if !agrees || factors.len() != self.head_dim / 2 {
            let message =
                "scales positions in a way that is not known; use the original model's folder";
            return Err(GgufError::tensor(&self.file.path, ROPE_FACTORS, message));
        }
        Ok(json!({
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        }))
    }

    /// The tensors by Hugging Face's names, with their names in the file.
    pub(super) fn tensors(&self) -> Result<Vec<(String, &'a str)>, GgufError> {
        let names = self.file.tensors.keys().map(String::as_str);
        let kept = names.filter(|name| *name != ROPE_FACTORS);
        let named = kept.map(|name| match hugging_face_name(name) {
            Some(own) => Ok((own, name)),
            None => {
                let message =
                    "is of no part that such a model has; use the original model's folder";
                Err(GgufError::tensor(&self.file.path, name, message))
            }
        });
        named.collect()
    }

    /// The longest sequence, in tokens.
    pub(super) fn max_tokens(&self) -> Result<usize, GgufError> {
        self.file.size(&self.own("context_length"))
    }

    /// The width of the heads of query or key, where the order of their rows is another than in Hugging Face's files:
    /// llama.cpp turns neighbours of a head in a Llama, and coordinates that lie half a head apart in the others.
    pub(super) fn paired_heads(
        &self,
        name: &str,
        info: &TensorInfo,
    ) -> Result<Option<usize>, GgufError> {
        let heads = match name.split('.').nth(2) {
            Some("attn_q") => self.heads,
            Some("attn_k") => self.key_value_heads,
            _ => return Ok(None),
        };
        if self.architecture != "llama" {
            return Ok(None);
        }
        let rows = info.shape.first().copied().unwrap_or(0);
        if heads * self.head_dim != rows || !self.head_dim.is_multiple_of(2) {
            let message = "does not have a row for each coordinate of each head";
            return Err(GgufError::tensor(&self.file.path, name, message));
        }
        Ok(Some(self.head_dim))
    }

    /// A tensor's values, in Hugging Face's order.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>, GgufError> {
        let Some(info) = self.file.tensors.get(name) else {
            return Err(GgufError::tensor(&self.file.path, name, "is missing"));
        };
        let values = self.file.read(name, info)?;
        let rows = info.shape.first().copied().unwrap_or(0);
        Ok(match self.paired_heads(name, info)? {
            Some(width) => with_halves(&values, rows, width),
            None => values,
        })
    }
}
