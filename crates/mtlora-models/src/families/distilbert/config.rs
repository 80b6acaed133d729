//! The configuration of a DistilBERT: `config.json` of a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::families::config_file::ConfigFile;
use crate::families::head::labels::{
    check_labels, set_if_known, set_labels, update_written, usual_problem_type,
};
use crate::families::head::problem_type::ProblemType;
use crate::families::sizes::ModelSizes;
use crate::families::text_config::TextConfig;
use crate::files::fields::MAX_DROPOUT;
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, AttentionSpec};

/// The `model_type` of DistilBERT.
pub(super) const MODEL_TYPE: &str = "distilbert";

/// The class with a classification head.
const CLASSIFICATION_CLASS: &str = "DistilBertForSequenceClassification";

/// The constant that its layer norms add to the variance; config.json does not name it.
pub(super) const EPSILON: f64 = 1e-12;

/// The configuration of a DistilBERT. The fields are named as in config.json. [`Self::to_json`] writes them back and keeps
/// all other fields of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct DistilBertConfig {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub dim: usize,
    /// The width of the feed-forward hidden layer.
    pub hidden_dim: usize,
    /// The number of layers.
    pub n_layers: usize,
    /// The number of attention heads in a layer, which divides `dim`.
    pub n_heads: usize,
    /// The longest sequence: rows of the position embeddings.
    pub max_position_embeddings: usize,
    /// The activation function of the feed-forward part.
    pub activation: Activation,
    /// The dropout probability of embeddings and feed-forward outputs; at least 0 and below 1.
    pub dropout: f64,
    /// The dropout probability of the attention probabilities; at least 0 and below 1.
    pub attention_dropout: f64,
    /// The dropout probability before the output layer; at least 0 and below 1.
    pub seq_classif_dropout: f64,
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

impl DistilBertConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// If there is no such folder or file, it is not JSON, the architecture is another one, or a field is missing or out of
    /// range. The error names the file and the field.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        Self::from_file(&ConfigFile::open(folder)?)
    }

    /// A new configuration with the published settings, and the class with a classification head.
    ///
    /// # Errors
    /// If a size is out of range, or the number of heads does not divide the hidden size.
    pub fn new(sizes: &ModelSizes) -> Result<Self, ModelError> {
        let mut map = Map::new();
        for (field, value) in [
            ("activation", json!("gelu")),
            ("architectures", json!([CLASSIFICATION_CLASS])),
            ("attention_dropout", json!(0.1)),
            ("dim", json!(sizes.hidden_size)),
            ("dropout", json!(0.1)),
            ("hidden_dim", json!(sizes.inner())),
            ("initializer_range", json!(0.02)),
            ("max_position_embeddings", json!(sizes.max_tokens)),
            ("model_type", json!(MODEL_TYPE)),
            ("n_heads", json!(sizes.heads)),
            ("n_layers", json!(sizes.layers)),
            ("pad_token_id", json!(0)),
            ("seq_classif_dropout", json!(0.2)),
            ("vocab_size", json!(sizes.vocab_size)),
        ] {
            map.insert(field.to_string(), value);
        }
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
        let vocab_size = fields.size("vocab_size", "is the number of tokens", 1..=1 << 24)?;
        let dim = fields.size("dim", "is the width of the hidden states", 1..=1 << 16)?;
        let hidden_dim = fields.size(
            "hidden_dim",
            "is the width between the feed-forward layers",
            1..=1 << 20,
        )?;
        let n_layers = fields.size("n_layers", "is the number of layers", 1..=1 << 10)?;
        let n_heads = fields.size("n_heads", "is the number of attention heads", 1..=1 << 16)?;
        if !dim.is_multiple_of(n_heads) {
            return Err(fields.wrong(
                "n_heads",
                format!("is {n_heads}, which does not divide dim, {dim}; one of the two is wrong"),
            ));
        }
        let dropout = |field: &str, default| -> Result<f64, ModelError> {
            Ok(fields.number(field, 0.0..=MAX_DROPOUT)?.unwrap_or(default))
        };
        let (labels, problem_type) = (fields.labels()?, fields.problem_type()?);
        Ok(Self {
            vocab_size,
            dim,
            hidden_dim,
            n_layers,
            n_heads,
            max_position_embeddings: fields.size_or("max_position_embeddings", 512, 1..=1 << 20)?,
            activation: fields.activation("activation", Activation::GeluErf)?,
            dropout: dropout("dropout", 0.1)?,
            attention_dropout: dropout("attention_dropout", 0.1)?,
            seq_classif_dropout: dropout("seq_classif_dropout", 0.2)?,
            initializer_range: fields
                .number("initializer_range", 0.0..=10.0)?
                .unwrap_or(0.02),
            labels,
            problem_type,
            architectures: fields.strings("architectures")?,
            attention: AttentionSpec::new(n_heads, dim / n_heads).build()?,
            original: file.map().clone(),
        })
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

impl TextConfig for DistilBertConfig {
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sizes() -> ModelSizes {
        ModelSizes {
            vocab_size: 100,
            hidden_size: 24,
            layers: 2,
            heads: 3,
            key_value_heads: None,
            head_width: None,
            intermediate_size: None,
            max_tokens: 40,
            end_of_text: None,
        }
    }

    fn with(field: &str, value: Value) -> Result<DistilBertConfig, ModelError> {
        let text = DistilBertConfig::new(&sizes()).unwrap().to_json();
        let mut map: Map<String, Value> = serde_json::from_str(&text).unwrap();
        map.insert(field.into(), value);
        DistilBertConfig::from_file(&ConfigFile::from_map(map))
    }

    #[test]
    fn a_configuration_reads_back_as_itself() {
        let config = with("my_own_field", json!([1, null])).unwrap();
        assert_eq!((config.hidden_dim, config.max_tokens()), (96, 40));
        assert_eq!(config.token_types(), 1);
        let labels = vec!["no".to_string(), "yes".to_string()];
        let config = config
            .with_classifier(labels, ProblemType::SingleLabelClassification)
            .unwrap();
        let text = config.to_json();
        let map: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(map["my_own_field"], json!([1, null]));
        assert_eq!(map["id2label"], json!({"0": "no", "1": "yes"}));
        let again = DistilBertConfig::from_file(&ConfigFile::from_map(map)).unwrap();
        assert_eq!(again.to_json(), text);
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        for (field, value) in [
            ("dim", json!(0)),
            ("n_heads", json!(5)),
            ("n_layers", json!("2")),
            ("hidden_dim", json!(-1)),
            ("vocab_size", json!(1.5)),
            ("dropout", json!(1)),
            ("seq_classif_dropout", json!("no")),
            ("activation", json!("mish")),
            ("quantization_config", json!({})),
        ] {
            let error = with(field, value.clone()).unwrap_err();
            let ModelError::Field { field: named, .. } = &error else {
                panic!("{field} {value}: {error}");
            };
            assert_eq!(named, field, "{error}");
        }
        let error = with("model_type", json!("bert")).unwrap_err().to_string();
        assert!(
            error.contains("is not supported, only `distilbert`;"),
            "{error}"
        );
    }
}
