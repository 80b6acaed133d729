//! The configuration of a DeBERTa: `config.json` of a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::positions::RelativeBuckets;
use crate::error::ModelError;
use crate::families::config_file::ConfigFile;
use crate::families::head::labels::{
    check_labels, set_if_known, set_labels, update_written, usual_problem_type,
};
use crate::families::head::problem_type::ProblemType;
use crate::families::sizes::ModelSizes;
use crate::families::text_config::TextConfig;
use crate::files::fields::{Fields, MAX_DROPOUT, brief};
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, AttentionSpec, ScoreBias};

/// The `model_type` of DeBERTa v2 and v3.
pub(super) const MODEL_TYPE: &str = "deberta-v2";

/// The class with a classification head.
const CLASSIFICATION_CLASS: &str = "DebertaV2ForSequenceClassification";

/// The configuration of a DeBERTa v2 or v3. The fields are named as in config.json. [`Self::to_json`] writes them back and
/// keeps all other fields of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct DebertaConfig {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub hidden_size: usize,
    /// The width of the embeddings, from which `embed_proj` leads to `hidden_size` where the two differ.
    pub embedding_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of attention heads in a layer, which divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The width of the feed-forward hidden layer.
    pub intermediate_size: usize,
    /// The activation function of the feed-forward part.
    pub hidden_act: Activation,
    /// The dropout probability of embeddings, layer outputs and relative positions; at least 0 and below 1.
    pub hidden_dropout_prob: f64,
    /// The dropout probability of the attention probabilities; at least 0 and below 1.
    pub attention_probs_dropout_prob: f64,
    /// The dropout probability before the pooler; at least 0 and below 1.
    pub pooler_dropout: f64,
    /// The activation function of the pooler.
    pub pooler_hidden_act: Activation,
    /// The dropout probability before the output layer; `None` means `hidden_dropout_prob`.
    pub cls_dropout: Option<f64>,
    /// The longest sequence, and the rows of the absolute position embeddings, where there are any.
    pub max_position_embeddings: usize,
    /// Whether the embeddings have absolute positions, too.
    pub position_biased_input: bool,
    /// Rows of the token-type embeddings. With 0 there are none.
    pub type_vocab_size: usize,
    /// How distances become rows of the relative-position embeddings. `None` without `relative_attention`.
    pub relative: Option<RelativeBuckets>,
    /// Whether queries are multiplied with relative positions (`c2p` in `pos_att_type`).
    pub content_to_position: bool,
    /// Whether keys are multiplied with relative positions (`p2c` in `pos_att_type`).
    pub position_to_content: bool,
    /// Whether relative positions are projected by the maps of queries and keys rather than by maps of their own.
    pub share_att_key: bool,
    /// Whether the relative-position embeddings are normalised (`layer_norm` in `norm_rel_ebd`).
    pub normalizes_relative: bool,
    /// The constant that layer norms add to the variance.
    pub layer_norm_eps: f64,
    /// The standard deviation of the normal distribution from which new weights are drawn.
    pub initializer_range: f64,
    /// The names of the labels in the order of the outputs. Never empty.
    pub labels: Vec<String>,
    /// The kind of prediction, if the file names it. See [`Self::effective_problem_type`].
    pub problem_type: Option<ProblemType>,
    /// The classes from which the tensors were saved.
    pub architectures: Vec<String>,
    /// The attention of each layer.
    pub(super) attention: Attention,
    /// The original fields of the file, in their order.
    original: Map<String, Value>,
}

impl DebertaConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// If there is no such folder or file, it is not JSON, the architecture is another one, or a field is missing, out of range
    /// or not supported. The error names the file and the field.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        Self::from_file(&ConfigFile::open(folder)?)
    }

    /// A new configuration with DeBERTaV3's published settings: 256 position buckets, shared projections, no absolute
    /// positions, and the class with a classification head.
    ///
    /// # Errors
    /// If a size is out of range, or the number of heads does not divide the hidden size.
    pub fn new(sizes: &ModelSizes) -> Result<Self, ModelError> {
        let fields = json!({
            "architectures": [CLASSIFICATION_CLASS],
            "attention_probs_dropout_prob": 0.1,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": sizes.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": sizes.inner(),
            "layer_norm_eps": 1e-7,
            "max_position_embeddings": sizes.max_tokens,
            "max_relative_positions": -1,
            "model_type": MODEL_TYPE,
            "norm_rel_ebd": "layer_norm",
            "num_attention_heads": sizes.heads,
            "num_hidden_layers": sizes.layers,
            "pad_token_id": 0,
            "pooler_dropout": 0,
            "pooler_hidden_act": "gelu",
            "pooler_hidden_size": sizes.hidden_size,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": false,
            "position_buckets": 256,
            "relative_attention": true,
            "share_att_key": true,
            "type_vocab_size": 0,
            "vocab_size": sizes.vocab_size,
        });
        let Value::Object(map) = fields else {
            unreachable!("an object was written above")
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
        fields.refuse_other_models()?;
        fields.refuse_convolution()?;
        let vocab_size = fields.size("vocab_size", "is the number of tokens", 1..=1 << 24)?;
        let hidden_size = fields.size(
            "hidden_size",
            "is the width of the hidden states",
            1..=1 << 16,
        )?;
        let num_hidden_layers =
            fields.size("num_hidden_layers", "is the number of layers", 1..=1 << 10)?;
        let num_attention_heads = fields.size(
            "num_attention_heads",
            "is the number of attention heads",
            1..=1 << 16,
        )?;
        let intermediate_size = fields.size(
            "intermediate_size",
            "is the width between the feed-forward layers",
            1..=1 << 20,
        )?;
        if !hidden_size.is_multiple_of(num_attention_heads) {
            return Err(fields.wrong(
                "num_attention_heads",
                format!("is {num_attention_heads}, which does not divide hidden_size, {hidden_size}; one of the two is wrong"),
            ));
        }
        let head_size = hidden_size / num_attention_heads;
        for (field, expected) in [
            ("attention_head_size", head_size),
            ("pooler_hidden_size", hidden_size),
        ] {
            fields.only(field, expected)?;
        }
        let max_position_embeddings =
            fields.size_or("max_position_embeddings", 512, 1..=1 << 20)?;
        let has_relative = fields.flag_or("relative_attention", false)?;
        let relative = match has_relative {
            true => Some(fields.relative_buckets(max_position_embeddings)?),
            false => None,
        };
        let kinds = fields.words("pos_att_type")?;
        if let Some(unknown) = kinds
            .iter()
            .find(|kind| !["c2p", "p2c"].contains(&kind.as_str()))
        {
            let message = format!("has `{unknown}`, but only `c2p` and `p2c` are supported");
            return Err(fields.wrong("pos_att_type", message));
        }
        let has = |kind: &str| kinds.iter().any(|known| known == kind);
        let norms = fields.words("norm_rel_ebd")?;
        let dropout = 0.0..=MAX_DROPOUT;
        let score_bias = ScoreBias::RelativePositions {
            keys: has("c2p"),
            queries: has("p2c"),
        };
        let attention = AttentionSpec {
            score_bias,
            ..AttentionSpec::new(num_attention_heads, head_size)
        };
        let (labels, problem_type) = (fields.labels()?, fields.problem_type()?);
        Ok(Self {
            vocab_size,
            hidden_size,
            embedding_size: fields.size_or("embedding_size", hidden_size, 1..=1 << 16)?,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size,
            hidden_act: fields.activation("hidden_act", Activation::GeluErf)?,
            hidden_dropout_prob: fields
                .number("hidden_dropout_prob", dropout.clone())?
                .unwrap_or(0.1),
            attention_probs_dropout_prob: fields
                .number("attention_probs_dropout_prob", dropout.clone())?
                .unwrap_or(0.1),
            pooler_dropout: fields
                .number("pooler_dropout", dropout.clone())?
                .unwrap_or(0.0),
            pooler_hidden_act: fields.activation("pooler_hidden_act", Activation::GeluErf)?,
            cls_dropout: fields.number("cls_dropout", dropout)?,
            max_position_embeddings,
            position_biased_input: fields.flag_or("position_biased_input", true)?,
            type_vocab_size: fields.size_or("type_vocab_size", 0, 0..=1 << 16)?,
            relative,
            content_to_position: has("c2p"),
            position_to_content: has("p2c"),
            share_att_key: fields.flag_or("share_att_key", false)?,
            normalizes_relative: norms.iter().any(|norm| norm == "layer_norm"),
            layer_norm_eps: fields
                .number("layer_norm_eps", 1e-30..=1.0)?
                .unwrap_or(1e-7),
            initializer_range: fields
                .number("initializer_range", 0.0..=10.0)?
                .unwrap_or(0.02),
            labels,
            problem_type,
            architectures: fields.strings("architectures")?,
            attention: attention.build()?,
            original: file.map().clone(),
        })
    }

    /// The dropout probability before the output layer.
    pub fn head_dropout(&self) -> f64 {
        self.cls_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// The kind of prediction: that of the file, or else regression for one label, and one label out of several for
    /// more.
    pub fn effective_problem_type(&self) -> ProblemType {
        self.problem_type
            .unwrap_or_else(|| usual_problem_type(&self.labels))
    }

    /// The same encoder with a classification head for `labels`; a regression has one name.
    ///
    /// # Errors
    /// If there are no labels, or more than 100,000.
    pub fn with_classifier(
        mut self,
        labels: Vec<String>,
        problem_type: ProblemType,
    ) -> Result<Self, ModelError> {
        check_labels(&labels)?;
        self.labels = labels;
        self.problem_type = Some(problem_type);
        self.architectures = vec![CLASSIFICATION_CLASS.to_string()];
        Ok(self)
    }

    /// The configuration as the text of a config.json: the file's fields, with the current labels and the precision in which
    /// weights are written.
    pub fn to_json(&self) -> String {
        let mut map = self.original.clone();
        map.insert("architectures".to_string(), json!(self.architectures));
        set_labels(&mut map, &self.labels);
        let problem = self.problem_type.map(|problem| json!(problem.name()));
        set_if_known(&mut map, "problem_type", problem);
        update_written(&mut map, &self.labels);
        format!("{:#}\n", Value::Object(map))
    }
}

impl TextConfig for DebertaConfig {
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
        self.max_position_embeddings
    }

    fn token_types(&self) -> usize {
        self.type_vocab_size.max(1)
    }
}

/// The checks that only a DeBERTa's configuration needs.
impl Fields<'_> {
    /// The convolution after the first layer, which DeBERTa-v2-xlarge and xxlarge have.
    fn refuse_convolution(&self) -> Result<(), ModelError> {
        let field = "conv_kernel_size";
        match self.get(field).filter(|value| **value != json!(0)) {
            Some(value) => Err(self.wrong(
                field,
                format!(
                    "is {}: the convolution of DeBERTa-v2-xlarge and xxlarge is not supported; use a DeBERTaV3, which has \
                     none",
                    brief(value)
                ),
            )),
            None => Ok(()),
        }
    }

    /// Refuses any number but `expected`.
    fn only(&self, field: &'static str, expected: usize) -> Result<(), ModelError> {
        match self.get(field).filter(|value| **value != json!(expected)) {
            Some(value) => Err(self.wrong(
                field,
                format!("is {}, but only {expected} is supported", brief(value)),
            )),
            None => Ok(()),
        }
    }

    /// Words in small letters: a list of them, or one text in which `|` stands between them. `none` is no word.
    fn words(&self, field: &str) -> Result<Vec<String>, ModelError> {
        let words = match self.get(field) {
            Some(Value::String(text)) => text
                .to_lowercase()
                .split('|')
                .map(|word| word.trim().to_string())
                .collect(),
            _ => self.strings(field)?,
        };
        let is_word = |word: &String| !word.is_empty() && word != "none";
        Ok(words.into_iter().filter(is_word).collect())
    }

    /// A number of which -1 and 0, and no number, mean that there is none.
    fn positive(&self, field: &str) -> Result<Option<usize>, ModelError> {
        match self.get(field) {
            None => Ok(None),
            Some(value) if value.as_i64().is_some_and(|number| number < 1) => Ok(None),
            Some(value) => self.whole(field, value, 1..=1 << 20).map(Some),
        }
    }

    fn relative_buckets(&self, positions: usize) -> Result<RelativeBuckets, ModelError> {
        let max_distance = self
            .positive("max_relative_positions")?
            .unwrap_or(positions);
        let buckets = self.positive("position_buckets")?;
        if let Some(buckets) = buckets
            && (buckets < 2 || max_distance <= buckets / 2 + 1)
        {
            let message = format!(
                "is {buckets}, which does not go with relative positions up to {max_distance}: it must be at least 2, and \
                 half of it below {}",
                max_distance.saturating_sub(1)
            );
            return Err(self.wrong("position_buckets", message));
        }
        Ok(RelativeBuckets {
            buckets,
            max_distance,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BASE: &str = r#"{
  "attention_probs_dropout_prob": 0.1,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.1,
  "hidden_size": 768,
  "initializer_range": 0.02,
  "intermediate_size": 3072,
  "layer_norm_eps": 1e-07,
  "max_position_embeddings": 512,
  "max_relative_positions": -1,
  "model_type": "deberta-v2",
  "my_own_field": [1, 2.5, null],
  "norm_rel_ebd": "layer_norm",
  "num_attention_heads": 12,
  "num_hidden_layers": 12,
  "pad_token_id": 0,
  "pooler_dropout": 0,
  "pooler_hidden_act": "gelu",
  "pooler_hidden_size": 768,
  "pos_att_type": "p2c|c2p",
  "position_biased_input": false,
  "position_buckets": 256,
  "relative_attention": true,
  "share_att_key": true,
  "type_vocab_size": 0,
  "vocab_size": 128100
}"#;

    fn parse(text: &str) -> Result<DebertaConfig, ModelError> {
        let file = ConfigFile::from_bytes(Path::new("config.json"), text.as_bytes())?;
        DebertaConfig::from_file(&file)
    }

    fn with(field: &str, value: Value) -> Result<DebertaConfig, ModelError> {
        let mut map: Map<String, Value> = serde_json::from_str(BASE).unwrap();
        map.insert(field.into(), value);
        parse(&Value::Object(map).to_string())
    }

    #[test]
    fn the_published_file_is_read() {
        let config = parse(BASE).unwrap();
        assert!(config.content_to_position && config.position_to_content && config.share_att_key);
        assert!(config.normalizes_relative && !config.position_biased_input);
        let relative = RelativeBuckets {
            buckets: Some(256),
            max_distance: 512,
        };
        assert_eq!(config.relative, Some(relative));
        assert_eq!(config.embedding_size, 768);
        assert_eq!((config.max_tokens(), config.token_types()), (512, 1));
        assert_eq!(config.head_dropout(), 0.1);
        // A list means the same, and so does any other order.
        let list = with("pos_att_type", json!(["c2p", "p2c"])).unwrap();
        assert!(list.content_to_position && list.position_to_content);
        let one = with("pos_att_type", json!("c2p")).unwrap();
        assert!(one.content_to_position && !one.position_to_content);
        let own = with("position_buckets", json!(-1)).unwrap();
        assert_eq!(own.relative.unwrap().span(), 512);
        let wide = with("max_relative_positions", json!(1024)).unwrap();
        assert_eq!(wide.relative.unwrap().max_distance, 1024);
        assert_eq!(
            with("relative_attention", json!(false)).unwrap().relative,
            None
        );
        let plain = with("norm_rel_ebd", json!("none")).unwrap();
        assert!(!plain.normalizes_relative);
        assert_eq!(with("cls_dropout", json!(0.3)).unwrap().head_dropout(), 0.3);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (field, value) in [
            ("conv_kernel_size", json!(3)),
            ("attention_head_size", json!(32)),
            ("pooler_hidden_size", json!(32)),
            ("pos_att_type", json!("p2p|c2p")),
            ("pos_att_type", json!(3)),
            ("position_buckets", json!(1)),
            ("position_buckets", json!(1024)),
            ("position_buckets", json!("256")),
            ("max_relative_positions", json!(1.5)),
            ("hidden_act", json!("mish")),
            ("pooler_hidden_act", json!("mish")),
            ("num_attention_heads", json!(5)),
            ("hidden_size", json!(0)),
            ("type_vocab_size", json!(-1)),
            ("relative_attention", json!("yes")),
            ("cls_dropout", json!(1)),
            ("quantization_config", json!({})),
            ("id2label", json!({})),
        ] {
            let error = with(field, value.clone()).unwrap_err();
            let ModelError::Field { field: named, .. } = &error else {
                panic!("{field} {value}: {error}");
            };
            assert_eq!(named, field, "{error}");
        }
        let error = with("model_type", json!("deberta"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("is not supported, only `deberta-v2`;"),
            "{error}"
        );
        let none = with("conv_kernel_size", json!(0));
        assert!(none.is_ok());
    }

    #[test]
    fn writing_keeps_every_field_and_the_order() {
        let config = parse(BASE).unwrap();
        let labels = vec!["no".to_string(), "yes".to_string()];
        let config = config
            .with_classifier(labels, ProblemType::SingleLabelClassification)
            .unwrap();
        let text = config.to_json();
        let written: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let original: Map<String, Value> = serde_json::from_str(BASE).unwrap();
        for (key, value) in &original {
            assert_eq!(written.get(key), Some(value), "{key}");
        }
        assert!(written.keys().zip(original.keys()).all(|(a, b)| a == b));
        assert_eq!(written["id2label"], json!({"0": "no", "1": "yes"}));
        assert_eq!(written["architectures"], json!([CLASSIFICATION_CLASS]));
        let again = parse(&text).unwrap();
        assert_eq!(again.to_json(), text);
        assert_eq!(again.labels, ["no", "yes"]);
    }

    #[test]
    fn a_new_configuration_reads_back_as_itself() {
        let sizes = ModelSizes {
            vocab_size: 1000,
            hidden_size: 64,
            layers: 2,
            heads: 4,
            key_value_heads: None,
            head_width: None,
            intermediate_size: Some(128),
            max_tokens: 512,
            end_of_text: None,
        };
        let config = DebertaConfig::new(&sizes).unwrap();
        let again = parse(&config.to_json()).unwrap();
        assert_eq!(again.to_json(), config.to_json());
        assert!(again.relative.is_some() && again.content_to_position);
        let heads = ModelSizes { heads: 5, ..sizes };
        assert!(DebertaConfig::new(&heads).is_err());
    }
}
