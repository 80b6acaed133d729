//! The configuration of a GPT-2: `config.json` of a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::families::config_file::ConfigFile;
use crate::families::text_config::TextConfig;
use crate::files::fields::{Fields, MAX_DROPOUT, brief};
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, AttentionSpec};

pub(super) const MODEL_TYPE: &str = "gpt2";

/// The sizes of a new GPT-2; see [`Gpt2Config::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpt2Sizes {
    /// The number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub n_embd: usize,
    /// The number of blocks.
    pub n_layer: usize,
    /// The number of attention heads in a block, which must divide `n_embd`.
    pub n_head: usize,
    /// The maximum length of a sequence in tokens.
    pub n_positions: usize,
    /// The id of the end-of-text token, GPT-2's `<|endoftext|>`.
    pub end_of_text: u32,
}

/// The configuration of a GPT-2. The fields are named as in config.json. [`Self::to_json`] writes them back and keeps
/// all other fields of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// The number of rows of the token embedding.
    pub vocab_size: usize,
    /// The maximum length of a sequence in tokens.
    pub n_positions: usize,
    /// The width of the hidden states.
    pub n_embd: usize,
    /// The number of blocks.
    pub n_layer: usize,
    /// The number of attention heads in a block, which divides `n_embd`.
    pub n_head: usize,
    /// The width of the feed-forward hidden layer.
    pub n_inner: usize,
    /// The activation function of the feed-forward block.
    pub activation_function: Activation,
    /// The dropout probability of the outputs of attention and feed-forward block; at least 0 and below 1.
    pub resid_pdrop: f64,
    /// The dropout probability of the embeddings; at least 0 and below 1.
    pub embd_pdrop: f64,
    /// The dropout probability of the attention probabilities; at least 0 and below 1.
    pub attn_pdrop: f64,
    /// The constant that layer norms add to the variance.
    pub layer_norm_epsilon: f64,
    /// The standard deviation of the normal distribution from which new weights are drawn.
    pub initializer_range: f64,
    /// The id of the token that ends a text; if the file has a list, its first.
    pub eos_token_id: u32,
    /// Whether the output map and the token embedding are one weight. If a checkpoint has both tensors with different
    /// values, the model has a separate output map whatever this says; see
    /// [`Gpt2Lm::lm_head`](super::Gpt2Lm::lm_head).
    pub tie_word_embeddings: bool,
    /// The attention of each block.
    pub(crate) attention: Attention,
    /// The original fields of the file, in their order.
    original: Map<String, Value>,
}

impl Gpt2Config {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// If there is no such folder or file, it is not JSON, the architecture is another one, or a field is missing or
    /// out of range. The error names the file and the field.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        Self::from_file(&ConfigFile::open(folder)?)
    }

    /// A new configuration with the published defaults: dropout 0.1, `gelu_new`, and weights with a standard
    /// deviation of 0.02.
    ///
    /// # Errors
    /// If a size is out of range, or the number of heads does not divide the width.
    pub fn new(sizes: Gpt2Sizes) -> Result<Self, ModelError> {
        let fields = json!({
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.1,
            "bos_token_id": sizes.end_of_text,
            "embd_pdrop": 0.1,
            "eos_token_id": sizes.end_of_text,
            "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-5,
            "model_type": MODEL_TYPE,
            "n_embd": sizes.n_embd,
            "n_head": sizes.n_head,
            "n_inner": null,
            "n_layer": sizes.n_layer,
            "n_positions": sizes.n_positions,
            "resid_pdrop": 0.1,
            "tie_word_embeddings": true,
            "vocab_size": sizes.vocab_size,
        });
        let map = match fields {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Self::from_file(&ConfigFile::from_map(map))
    }

    /// Reads the fields of a `config.json`.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_file(file: &ConfigFile) -> Result<Self, ModelError> {
        if file.model_type()? != MODEL_TYPE {
            return Err(file.unsupported(vec![MODEL_TYPE]));
        }
        let fields = file.fields();
        refuse_variants(&fields)?;
        let vocab_size = fields.size("vocab_size", "is the number of tokens", 1..=1 << 24)?;
        let n_embd = fields.size(
            fields.named("n_embd", "hidden_size"),
            "is the width of the hidden states",
            1..=1 << 16,
        )?;
        let n_head = fields.size(
            fields.named("n_head", "num_attention_heads"),
            "is the number of attention heads",
            1..=1 << 16,
        )?;
        if !n_embd.is_multiple_of(n_head) {
            return Err(fields.wrong(
                "n_head",
                format!(
                    "is {n_head}, which does not divide n_embd, {n_embd}; one of the two is wrong"
                ),
            ));
        }
        let n_inner = fields.size_or("n_inner", 4 * n_embd, 1..=1 << 20)?;
        let probability = |field| {
            let found = fields.number(field, 0.0..=MAX_DROPOUT)?;
            Ok::<f64, ModelError>(found.unwrap_or(0.1))
        };
        let last = vocab_size - 1;
        let eos = end_of_text(&fields, last)?;
        Ok(Self {
            vocab_size,
            n_positions: fields.size(
                fields.named("n_positions", "max_position_embeddings"),
                "is the number of positions",
                1..=1 << 20,
            )?,
            n_embd,
            n_layer: fields.size(
                fields.named("n_layer", "num_hidden_layers"),
                "is the number of layers",
                1..=1 << 10,
            )?,
            n_head,
            n_inner,
            activation_function: fields.activation("activation_function", Activation::GeluTanh)?,
            resid_pdrop: probability("resid_pdrop")?,
            embd_pdrop: probability("embd_pdrop")?,
            attn_pdrop: probability("attn_pdrop")?,
            layer_norm_epsilon: fields
                .number("layer_norm_epsilon", 1e-30..=1.0)?
                .unwrap_or(1e-5),
            initializer_range: fields
                .number("initializer_range", 0.0..=10.0)?
                .unwrap_or(0.02),
            eos_token_id: eos as u32,
            tie_word_embeddings: fields.flag_or("tie_word_embeddings", true)?,
            attention: AttentionSpec::new(n_head, n_embd / n_head)
                .causal()
                .build()?,
            original: file.map().clone(),
        })
    }

    /// Sets the width of the feed-forward hidden layer if `inner` is given.
    pub(super) fn with_inner(mut self, inner: Option<usize>) -> Result<Self, ModelError> {
        let Some(inner) = inner else {
            return Ok(self);
        };
        self.original.insert("n_inner".to_string(), json!(inner));
        Self::from_file(&ConfigFile::from_map(self.original))
    }

    /// The configuration as the text of a config.json. The fields above have their current values, and all others
    /// those of the file. The element type is set to float32, in which weights are written.
    pub fn to_json(&self) -> String {
        let mut map = self.original.clone();
        for (key, value) in [
            ("architectures", json!(["GPT2LMHeadModel"])),
            ("attn_pdrop", json!(self.attn_pdrop)),
            ("embd_pdrop", json!(self.embd_pdrop)),
            ("resid_pdrop", json!(self.resid_pdrop)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
        ] {
            map.insert(key.to_string(), value);
        }
        // A list of end tokens or an explicit null is kept as in the file.
        if !matches!(map.get("eos_token_id"), Some(Value::Array(_) | Value::Null)) {
            map.insert("eos_token_id".to_string(), json!(self.eos_token_id));
        }
        for key in ["dtype", "torch_dtype"] {
            if let Some(old) = map.get_mut(key) {
                *old = json!("float32");
            }
        }
        format!("{:#}\n", Value::Object(map))
    }
}

/// The id of the token that ends a text: that of the file, the first of its list, or GPT-2's default.
fn end_of_text(fields: &Fields<'_>, last: usize) -> Result<usize, ModelError> {
    let field = "eos_token_id";
    match fields.get(field) {
        Some(Value::Array(ids)) => match ids.first() {
            Some(first) => fields.whole(field, first, 0..=last),
            None => Err(fields.wrong(
                field,
                "is an empty list, but must be a token's id".to_string(),
            )),
        },
        _ => fields.size_or(field, 50_256.min(last), 0..=last),
    }
}

impl Fields<'_> {
    /// The name of a field in the file. If the file has the name that other architectures use, it takes precedence
    /// over GPT-2's own.
    fn named(&self, own: &'static str, other: &'static str) -> &'static str {
        match self.get(other) {
            Some(_) => other,
            None => own,
        }
    }
}

/// Refuses variants of GPT-2 that are not supported, because their results would silently be wrong.
fn refuse_variants(fields: &Fields<'_>) -> Result<(), ModelError> {
    fields.refuse_other_models()?;
    for (field, supported) in [
        ("add_cross_attention", false),
        ("scale_attn_by_inverse_layer_idx", false),
        ("scale_attn_weights", true),
    ] {
        if let Some(value) = fields
            .get(field)
            .filter(|value| **value != json!(supported))
        {
            return Err(fields.wrong(
                field,
                format!("is {}, but only {supported} is supported", brief(value)),
            ));
        }
    }
    Ok(())
}

impl TextConfig for Gpt2Config {
    fn model_type(&self) -> &str {
        MODEL_TYPE
    }

    fn tokenizer_class(&self) -> Option<&str> {
        self.original.get("tokenizer_class").and_then(Value::as_str)
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_tokens(&self) -> usize {
        self.n_positions
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::files::weights::CheckpointLayout;
    use proptest::prelude::*;

    const SIZES: Gpt2Sizes = Gpt2Sizes {
        vocab_size: 100,
        n_embd: 8,
        n_layer: 2,
        n_head: 2,
        n_positions: 16,
        end_of_text: 99,
    };

    fn parse(change: impl Fn(&mut Map<String, Value>)) -> Result<Gpt2Config, ModelError> {
        let mut map = Gpt2Config::new(SIZES).unwrap().original;
        change(&mut map);
        let text = Value::Object(map).to_string();
        let file = ConfigFile::from_bytes(Path::new("config.json"), text.as_bytes())?;
        Gpt2Config::from_file(&file)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = parse(|map| {
            map.insert("n_ctx".into(), json!(16));
        })
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_json()).unwrap();
        let again = Gpt2Config::from_folder(folder.path()).unwrap();
        assert_eq!(again, config);
        assert!(again.to_json().contains("n_ctx"));
        assert_eq!(again.n_inner, 32);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let refused = |key: &str, value: Value| {
            let error = parse(|map| {
                map.insert(key.into(), value.clone());
            });
            error.unwrap_err().to_string()
        };
        assert!(refused("n_head", json!(3)).contains("does not divide n_embd"));
        assert!(refused("model_type", json!("llama")).contains("llama"));
        assert!(refused("tie_word_embeddings", json!("no")).contains("must be true or false"));
        assert!(refused("scale_attn_by_inverse_layer_idx", json!(true)).contains("only false"));
        assert!(refused("eos_token_id", json!(100)).contains("from 0 to 99"));
        assert!(refused("activation_function", json!("mish")).contains("one of"));
        let quantized = json!({"quant_method": "gptq", "bits": 4});
        assert!(refused("quantization_config", quantized).contains("quantized"));
        assert!(
            refused("per_layer_config", json!({"0": {"n_head": 1}})).contains("per_layer_config")
        );
        let missing = parse(|map| {
            map.remove("n_layer");
        });
        assert!(missing.unwrap_err().to_string().contains("`n_layer`"));
    }

    /// transformers 5.24's `attribute_map`: `{"n_head": 4, "num_attention_heads": 2}` has two heads.
    #[test]
    fn the_names_of_other_architectures_go_before_gpt2s_own() {
        let config = parse(|map| {
            for (own, other) in [
                ("n_embd", "hidden_size"),
                ("n_layer", "num_hidden_layers"),
                ("n_positions", "max_position_embeddings"),
            ] {
                let value = map.remove(own).unwrap();
                map.insert(other.into(), value);
            }
            map.insert("num_attention_heads".into(), json!(1));
        })
        .unwrap();
        assert_eq!(
            (config.n_embd, config.n_layer),
            (SIZES.n_embd, SIZES.n_layer)
        );
        assert_eq!((config.n_positions, config.n_head), (SIZES.n_positions, 1));
    }

    #[test]
    fn a_list_of_end_tokens_is_kept_and_its_first_ends_a_text() {
        let with = |value: Value| {
            parse(|map| {
                map.insert("eos_token_id".into(), value.clone());
            })
        };
        let config = with(json!([7, 3])).unwrap();
        assert_eq!(config.eos_token_id, 7);
        let written: Value = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(written["eos_token_id"], json!([7, 3]));
        let none = with(Value::Null).unwrap();
        let written: Value = serde_json::from_str(&none.to_json()).unwrap();
        assert_eq!(written["eos_token_id"], Value::Null);
        assert!(
            with(json!([]))
                .unwrap_err()
                .to_string()
                .contains("an empty list")
        );
        assert!(
            with(json!([100]))
                .unwrap_err()
                .to_string()
                .contains("from 0 to 99")
        );
    }

    #[test]
    fn names_are_hugging_faces() {
        let config = Gpt2Config::new(SIZES).unwrap();
        let name = |path| config.stored_name(path);
        assert_eq!(
            name("transformer.h.0.ln_1.gamma"),
            "transformer.h.0.ln_1.weight"
        );
        assert_eq!(name("transformer.ln_f.beta"), "transformer.ln_f.bias");
        assert_eq!(
            name("transformer.h.1.attn.c_attn.weight"),
            "transformer.h.1.attn.c_attn.weight"
        );
        assert!(config.foreign("h.0.attn.bias") && !config.foreign("h.0.attn.c_attn.bias"));
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(key in "[a-z_]{1,20}", number in any::<f64>(), which in 0usize..17) {
            let keys: Vec<String> = Gpt2Config::new(SIZES).unwrap().original.keys().cloned().collect();
            let key = keys.get(which).cloned().unwrap_or(key);
            for value in [json!(number), json!(number.to_string()), json!([number]), Value::Null] {
                let _ = parse(|map| { map.insert(key.clone(), value.clone()); });
            }
        }
    }
}
