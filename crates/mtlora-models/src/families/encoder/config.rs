//! The configuration of an encoder: `config.json` of a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::architecture::Architecture;
use crate::error::ModelError;
use crate::families::config_file::ConfigFile;
use crate::families::head::labels::{
    check_labels, set_if_known, set_labels, update_written, usual_problem_type,
};
use crate::families::head::problem_type::ProblemType;
use crate::families::text_config::TextConfig;
use crate::files::fields::{Fields, MAX_DROPOUT, brief};
use crate::layers::activation::Activation;
use crate::layers::attention::{Attention, AttentionSpec};

/// The sizes of a new encoder; see [`EncoderConfig::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderSizes {
    /// The number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub hidden_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of attention heads in a layer, which must divide `hidden_size`.
    pub num_attention_heads: usize,
    /// The width of the feed-forward hidden layer.
    pub intermediate_size: usize,
    /// The maximum length of a sequence in tokens, including special tokens.
    pub max_tokens: usize,
}

/// The configuration of an encoder. The fields are named as in config.json. [`Self::to_json`] writes them back and
/// keeps all other fields of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// The architecture, from `model_type`.
    pub architecture: Architecture,
    /// The number of rows of the word embedding.
    pub vocab_size: usize,
    /// The width of the hidden states.
    pub hidden_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of attention heads in a layer, which divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The width of the feed-forward hidden layer.
    pub intermediate_size: usize,
    /// The activation function of the feed-forward part.
    pub hidden_act: Activation,
    /// The dropout probability of embeddings and layer outputs; at least 0 and below 1.
    pub hidden_dropout_prob: f64,
    /// The dropout probability of the attention probabilities; at least 0 and below 1.
    pub attention_probs_dropout_prob: f64,
    /// The dropout probability in the classification head; `None` means `hidden_dropout_prob`. See
    /// [`Self::head_dropout`].
    pub classifier_dropout: Option<f64>,
    /// The number of rows of the position embedding. RoBERTa has more of them than a sequence can have tokens; see
    /// [`Self::max_tokens`].
    pub max_position_embeddings: usize,
    /// The number of rows of the token-type embedding.
    pub type_vocab_size: usize,
    /// The constant that layer norms add to the variance.
    pub layer_norm_eps: f64,
    /// The id of the padding token.
    pub pad_token_id: usize,
    /// The standard deviation of the normal distribution from which new weights are drawn.
    pub initializer_range: f64,
    /// The names of the labels in the order of the outputs, from `id2label`, or `LABEL_0` and so on. Never empty.
    pub labels: Vec<String>,
    /// The kind of prediction, if the file names it. See [`Self::effective_problem_type`].
    pub problem_type: Option<ProblemType>,
    /// The classes from which the tensors were saved.
    pub architectures: Vec<String>,
    /// The attention of each layer.
    pub(crate) attention: Attention,
    /// The original fields of the file, in their order.
    original: Map<String, Value>,
}

impl EncoderConfig {
    /// Whether the output layer of a masked language model's head is the word embedding, which is the default.
    pub(crate) fn ties_word_embeddings(&self) -> bool {
        self.original.get("tie_word_embeddings") != Some(&Value::Bool(false))
    }

    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// If there is no such folder or file, it is not JSON, the architecture is not supported, or a field is missing
    /// or out of range. The error names the file and the field.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        Self::from_file(&ConfigFile::open(folder)?)
    }

    /// Reads the bytes of a `config.json`; `path` is used only in messages.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, ModelError> {
        Self::from_file(&ConfigFile::from_bytes(path, bytes)?)
    }

    /// A new configuration with the published defaults of its architecture: dropout 0.1, GELU, weights with a
    /// standard deviation of 0.02, and the class with a masked-language-model head.
    ///
    /// # Errors
    /// If a size is out of range, or the number of heads does not divide the hidden size.
    pub fn new(architecture: Architecture, sizes: EncoderSizes) -> Result<Self, ModelError> {
        let (pad, eps, types, positions) = if architecture.is_roberta() {
            (1, 1e-5, 1, sizes.max_tokens.saturating_add(2))
        } else {
            (0, 1e-12, 2, sizes.max_tokens)
        };
        // The tokens at the ends of a text.
        let ends = match architecture {
            Architecture::Roberta | Architecture::XlmRoberta => Some([0, 2]),
            Architecture::Camembert => Some([5, 6]),
            Architecture::Bert => None,
        };
        let mut map = Map::new();
        let mut set = |key: &str, value: Value| map.insert(key.to_string(), value);
        set("architectures", json!([architecture.masked_lm_class()]));
        set("attention_probs_dropout_prob", json!(0.1));
        if let Some([first, last]) = ends {
            set("bos_token_id", json!(first));
            set("eos_token_id", json!(last));
        }
        set("hidden_act", json!("gelu"));
        set("hidden_dropout_prob", json!(0.1));
        set("hidden_size", json!(sizes.hidden_size));
        set("initializer_range", json!(0.02));
        set("intermediate_size", json!(sizes.intermediate_size));
        set("layer_norm_eps", json!(eps));
        set("max_position_embeddings", json!(positions));
        set("model_type", json!(architecture.model_type()));
        set("num_attention_heads", json!(sizes.num_attention_heads));
        set("num_hidden_layers", json!(sizes.num_hidden_layers));
        set("pad_token_id", json!(pad));
        set("position_embedding_type", json!("absolute"));
        set("type_vocab_size", json!(types));
        set("vocab_size", json!(sizes.vocab_size));
        Self::from_file(&ConfigFile::from_map(map))
    }

    /// Reads the fields of a `config.json`.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_file(file: &ConfigFile) -> Result<Self, ModelError> {
        let found = file.model_type()?;
        let all = Architecture::ALL;
        let architecture = all
            .into_iter()
            .find(|known| known.model_type() == found)
            .ok_or_else(|| file.unsupported(all.map(Architecture::model_type).to_vec()))?;
        let fields = file.fields();
        fields.refuse_variants()?;
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
        let max_position_embeddings = fields.size(
            "max_position_embeddings",
            "is the number of positions",
            1..=1 << 20,
        )?;
        if !hidden_size.is_multiple_of(num_attention_heads) {
            return Err(fields.wrong(
                "num_attention_heads",
                format!("is {num_attention_heads}, which does not divide hidden_size, {hidden_size}; one of the two is wrong"),
            ));
        }
        // Fields that these files may omit have the defaults of the published configuration classes.
        let pad_default = usize::from(architecture.is_roberta());
        let pad_token_id = fields.size_or("pad_token_id", pad_default, 0..=vocab_size - 1)?;
        if architecture.is_roberta() && max_position_embeddings <= pad_token_id + 1 {
            return Err(fields.wrong(
                "max_position_embeddings",
                format!("is {max_position_embeddings}, but positions begin at pad_token_id + 1 = {}; one of the two is wrong", pad_token_id + 1),
            ));
        }
        let dropout = 0.0..=MAX_DROPOUT;
        let (labels, problem_type) = (fields.labels()?, fields.problem_type()?);
        Ok(Self {
            architecture,
            vocab_size,
            hidden_size,
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
            classifier_dropout: fields.number("classifier_dropout", dropout)?,
            max_position_embeddings,
            type_vocab_size: fields.size_or("type_vocab_size", 2, 1..=1 << 16)?,
            // Below 1e-30 the constant is almost too small for a 32-bit float, and a constant row would be divided by
            // zero.
            layer_norm_eps: fields
                .number("layer_norm_eps", 1e-30..=1.0)?
                .unwrap_or(1e-12),
            pad_token_id,
            initializer_range: fields
                .number("initializer_range", 0.0..=10.0)?
                .unwrap_or(0.02),
            labels,
            problem_type,
            architectures: fields.strings("architectures")?,
            attention: AttentionSpec::new(num_attention_heads, hidden_size / num_attention_heads)
                .build()?,
            original: file.map().clone(),
        })
    }

    /// The number of outputs of the classification head.
    pub fn num_labels(&self) -> usize {
        self.labels.len()
    }

    /// The width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// The dropout probability in the classification head.
    pub fn head_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// The position of a sequence's first token. RoBERTa counts from the padding token's id plus one, BERT from 0.
    pub(crate) fn first_position(&self) -> usize {
        if self.architecture.is_roberta() {
            self.pad_token_id + 1
        } else {
            0
        }
    }

    /// The maximum length of a sequence in tokens, including special tokens.
    pub fn max_tokens(&self) -> usize {
        self.max_position_embeddings
            .saturating_sub(self.first_position())
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
        self.architectures = vec![self.architecture.classification_class()];
        Ok(self)
    }

    /// The same encoder with the masked-language-model head of its architecture.
    pub fn for_masked_lm(mut self) -> Self {
        self.architectures = vec![self.architecture.masked_lm_class()];
        self
    }

    /// The configuration as the text of a config.json. The fields above have their current values, and all others
    /// those of the file. The element type is set to float32, in which
    /// [`write_checkpoint`](crate::files::save::write_checkpoint) writes weights.
    pub fn to_json(&self) -> String {
        let mut map = self.original.clone();
        let mut set = |key: &str, value: Value| map.insert(key.to_string(), value);
        set("model_type", json!(self.architecture.model_type()));
        set("architectures", json!(self.architectures));
        set("vocab_size", json!(self.vocab_size));
        set("hidden_size", json!(self.hidden_size));
        set("num_hidden_layers", json!(self.num_hidden_layers));
        set("num_attention_heads", json!(self.num_attention_heads));
        set("intermediate_size", json!(self.intermediate_size));
        set("hidden_dropout_prob", json!(self.hidden_dropout_prob));
        set(
            "attention_probs_dropout_prob",
            json!(self.attention_probs_dropout_prob),
        );
        set(
            "max_position_embeddings",
            json!(self.max_position_embeddings),
        );
        set("type_vocab_size", json!(self.type_vocab_size));
        set("layer_norm_eps", json!(self.layer_norm_eps));
        set("pad_token_id", json!(self.pad_token_id));
        set("initializer_range", json!(self.initializer_range));
        set_labels(&mut map, &self.labels);
        // Several names mean the same activation function; that of the file is kept.
        let named = map.get("hidden_act").and_then(Value::as_str);
        if named.and_then(Activation::from_name) != Some(self.hidden_act) {
            map.insert("hidden_act".to_string(), json!(self.hidden_act.name()));
        }
        let dropout = self.classifier_dropout.map(Value::from);
        set_if_known(&mut map, "classifier_dropout", dropout);
        let problem = self.problem_type.map(|problem| json!(problem.name()));
        set_if_known(&mut map, "problem_type", problem);
        update_written(&mut map, &self.labels);
        format!("{:#}\n", Value::Object(map))
    }
}

impl TextConfig for EncoderConfig {
    fn model_type(&self) -> &str {
        self.architecture.model_type()
    }

    fn tokenizer_class(&self) -> Option<&str> {
        self.original.get("tokenizer_class").and_then(Value::as_str)
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_tokens(&self) -> usize {
        EncoderConfig::max_tokens(self)
    }

    fn token_types(&self) -> usize {
        self.type_vocab_size
    }

    fn positions(&self, ids: &[u32]) -> Vec<usize> {
        if self.architecture.is_roberta() {
            roberta_positions(ids, self.pad_token_id)
        } else {
            (0..ids.len()).collect()
        }
    }
}

/// The checks that only an encoder's configuration needs.
impl Fields<'_> {
    /// Refuses variants of these architectures that are not supported, because their results would silently be wrong.
    fn refuse_variants(&self) -> Result<(), ModelError> {
        self.refuse_other_models()?;
        let field = "position_embedding_type";
        if let Some(value) = self.get(field).filter(|value| *value != "absolute") {
            return Err(self.wrong(
                field,
                format!("is {}, but only \"absolute\" is supported", brief(value)),
            ));
        }
        for field in ["is_decoder", "add_cross_attention"] {
            if let Some(value) = self
                .get(field)
                .filter(|value| **value != Value::Bool(false))
            {
                return Err(self.wrong(
                    field,
                    format!(
                        "is {}, but only encoders are supported: false",
                        brief(value)
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// RoBERTa's positions start at the padding token's id plus one. A padding token inside a text is not counted and gets the
/// padding token's id as its position (`create_position_ids_from_input_ids` in `transformers`).
fn roberta_positions(ids: &[u32], pad: usize) -> Vec<usize> {
    let mut position = pad;
    ids.iter()
        .map(|id| {
            if *id as usize == pad {
                pad
            } else {
                position += 1;
                position
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::families::head::labels::MAX_LABELS;
    use crate::files::names::CONFIG_FILE;
    use proptest::prelude::*;

    /// transformers 5.24: `RobertaEmbeddings.create_position_ids_from_input_ids(ids, padding_idx=1)`.
    #[test]
    fn a_padding_token_in_a_text_has_its_own_position() {
        assert_eq!(roberta_positions(&[0, 5, 6, 2], 1), [2, 3, 4, 5]);
        assert_eq!(roberta_positions(&[0, 5, 1, 6, 2], 1), [2, 3, 1, 4, 5]);
        assert_eq!(roberta_positions(&[0, 1, 1, 2], 1), [2, 1, 1, 3]);
        assert_eq!(roberta_positions(&[1], 1), [1]);
        assert_eq!(roberta_positions(&[0, 3, 7], 3), [4, 3, 5]);
    }

    const ROBERTA: &str = r#"{
  "architectures": ["RobertaModel"],
  "hidden_act": "gelu_pytorch_tanh",
  "hidden_dropout_prob": 0.05,
  "hidden_size": 32,
  "intermediate_size": 64,
  "layer_norm_eps": 1e-05,
  "max_position_embeddings": 40,
  "model_type": "roberta",
  "my_own_field": {"kept": [1, 2.5, null]},
  "num_attention_heads": 4,
  "num_hidden_layers": 2,
  "num_labels": 7,
  "pad_token_id": 1,
  "torch_dtype": "float16",
  "type_vocab_size": 1,
  "vocab_size": 120
}"#;

    fn parse(text: &str) -> Result<EncoderConfig, ModelError> {
        EncoderConfig::from_bytes(Path::new("config.json"), text.as_bytes())
    }

    fn changed(change: impl FnOnce(&mut Map<String, Value>)) -> Result<EncoderConfig, ModelError> {
        let mut map: Map<String, Value> = serde_json::from_str(ROBERTA).unwrap();
        change(&mut map);
        parse(&Value::Object(map).to_string())
    }

    fn with(field: &str, value: Value) -> Result<EncoderConfig, ModelError> {
        changed(|map| {
            map.insert(field.into(), value);
        })
    }

    #[test]
    fn fields_are_read_and_absent_ones_have_the_published_defaults() {
        let config = parse(ROBERTA).unwrap();
        assert_eq!(config.architecture, Architecture::Roberta);
        assert_eq!(config.hidden_act, Activation::GeluTanh);
        assert_eq!(config.hidden_dropout_prob, 0.05);
        assert_eq!(config.attention_probs_dropout_prob, 0.1);
        assert_eq!(config.head_dropout(), 0.05);
        assert_eq!(config.layer_norm_eps, 1e-5);
        assert_eq!((config.head_size(), config.num_labels()), (8, 7));
        assert_eq!((config.first_position(), config.max_tokens()), (2, 38));
        assert_eq!(
            config.effective_problem_type(),
            ProblemType::SingleLabelClassification
        );
        let bert = changed(|map| {
            map.insert("model_type".into(), json!("bert"));
            for field in [
                "pad_token_id",
                "type_vocab_size",
                "layer_norm_eps",
                "num_labels",
            ] {
                map.remove(field);
            }
            map.insert("hidden_act".into(), Value::Null);
        })
        .unwrap();
        assert_eq!((bert.pad_token_id, bert.type_vocab_size), (0, 2));
        assert_eq!((bert.layer_norm_eps, bert.num_labels()), (1e-12, 2));
        assert_eq!((bert.first_position(), bert.max_tokens()), (0, 40));
        assert_eq!(bert.hidden_act, Activation::GeluErf);
    }

    #[test]
    fn a_missing_field_is_named() {
        for field in [
            "model_type",
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        ] {
            for null in [false, true] {
                let error = changed(|map| {
                    if null {
                        map.insert(field.into(), Value::Null);
                    } else {
                        map.remove(field);
                    }
                })
                .unwrap_err()
                .to_string();
                let begin = format!("config.json: has no field `{field}`, which ");
                assert!(error.starts_with(&begin), "{error}");
            }
        }
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_its_line() {
        let text = ROBERTA.replace("\"hidden_size\": 32", "\"hidden_size\": 0");
        assert_eq!(
            parse(&text).unwrap_err().to_string(),
            "config.json:5: field `hidden_size` is `0`, but must be a whole number from 1 to 65536"
        );
        for (field, value) in [
            ("num_attention_heads", json!(0)),
            ("num_attention_heads", json!(5)),
            ("vocab_size", json!(1u64 << 40)),
            ("vocab_size", json!(-1)),
            ("vocab_size", json!(120.0)),
            ("hidden_size", json!("32")),
            ("pad_token_id", json!(120)),
            ("pad_token_id", json!(40)),
            ("hidden_dropout_prob", json!(1.0)),
            ("classifier_dropout", json!("no")),
            ("layer_norm_eps", json!(0)),
            ("layer_norm_eps", json!(1e-60)),
            ("type_vocab_size", json!(0)),
            ("hidden_act", json!("mish")),
            ("position_embedding_type", json!("relative_key")),
            ("is_decoder", json!(true)),
            ("add_cross_attention", json!(true)),
            ("problem_type", json!("ranking")),
            ("architectures", json!("RobertaModel")),
            ("num_labels", json!(0)),
            ("num_labels", json!(1u64 << 60)),
            ("id2label", json!({})),
            ("id2label", json!(["a", "b"])),
            ("id2label", json!({"0": "a", "2": "b"})),
            ("id2label", json!({"0": "a", "00": "b"})),
            ("id2label", json!({"0": null})),
        ] {
            let error = with(field, value.clone()).unwrap_err();
            assert!(
                matches!(error, ModelError::Field { .. }),
                "{field} {value}: {error}"
            );
        }
    }

    #[test]
    fn another_architecture_is_refused_with_the_list() {
        for value in [json!("gpt2"), json!(3), json!("ROBERTA")] {
            let error = with("model_type", value).unwrap_err().to_string();
            assert!(
                error.contains(
                    "is not supported, only `roberta`, `bert`, `xlm-roberta`, `camembert`;"
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn labels_come_from_id2label_first() {
        let config = with("id2label", json!({"1": "yes", "0": "no"})).unwrap();
        assert_eq!(config.labels, ["no", "yes"]);
        assert_eq!(with("num_labels", json!(1)).unwrap().labels, ["LABEL_0"]);
        // Numbers are names, too, as transformers takes them.
        let config = with("id2label", json!({"0": 0, "1": 5})).unwrap();
        assert_eq!(config.labels, ["0", "5"]);
        // `label2id` counts where `id2label` says nothing.
        let config = with("label2id", json!({"yes": 0, "no": 1})).unwrap();
        assert_eq!(config.labels, ["yes", "no"]);
        for gap in [
            json!({"yes": 0, "no": 2}),
            json!({"yes": 1, "no": 1}),
            json!({"yes": "0"}),
            json!({}),
        ] {
            assert_eq!(with("label2id", gap).unwrap().labels[0], "LABEL_0");
        }
    }

    #[test]
    fn writing_keeps_unknown_fields_and_the_order() {
        let config = parse(ROBERTA)
            .unwrap()
            .with_classifier(
                vec!["bad".into(), "good".into()],
                ProblemType::SingleLabelClassification,
            )
            .unwrap();
        let text = config.to_json();
        let written: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let original: Map<String, Value> = serde_json::from_str(ROBERTA).unwrap();
        let changed = ["architectures", "num_labels", "torch_dtype"];
        for (key, value) in &original {
            if !changed.contains(&key.as_str()) {
                assert_eq!(written.get(key), Some(value), "{key}");
            }
        }
        assert!(written.keys().zip(original.keys()).all(|(a, b)| a == b));
        assert_eq!(written["num_labels"], 2);
        assert_eq!(written["torch_dtype"], "float32");
        assert_eq!(
            written["architectures"],
            json!(["RobertaForSequenceClassification"])
        );
        assert_eq!(written["id2label"], json!({"0": "bad", "1": "good"}));
        assert_eq!(written["label2id"], json!({"bad": 0, "good": 1}));
        assert!(!written.contains_key("classifier_dropout"));
        let mut again = parse(&text).unwrap();
        assert_eq!(again.to_json(), text);
        again.original = config.original.clone();
        assert_eq!(again, config);
        assert!(
            config
                .with_classifier(vec![], ProblemType::Regression)
                .is_err()
        );
    }

    #[test]
    fn a_new_configuration_reads_back_as_itself() {
        let sizes = EncoderSizes {
            vocab_size: 1000,
            hidden_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 128,
            max_tokens: 62,
        };
        for architecture in Architecture::ALL {
            let config = EncoderConfig::new(architecture, sizes).unwrap();
            assert_eq!(config.max_tokens(), 62);
            assert_eq!(config.architectures, [architecture.masked_lm_class()]);
            let again = parse(&config.to_json()).unwrap();
            assert_eq!(again.to_json(), config.to_json());
            assert_eq!(again.max_tokens(), 62);
        }
        let heads = EncoderSizes {
            num_attention_heads: 5,
            ..sizes
        };
        assert!(EncoderConfig::new(Architecture::Bert, heads).is_err());
    }

    #[test]
    fn a_folder_without_the_file_is_no_model_folder() {
        let folder = tempfile::tempdir().unwrap();
        let error = EncoderConfig::from_folder(folder.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is not a model folder: it has no config.json; "),
            "{error}"
        );
        std::fs::write(folder.path().join(CONFIG_FILE), ROBERTA).unwrap();
        assert_eq!(
            EncoderConfig::from_folder(folder.path()).unwrap(),
            parse(ROBERTA).unwrap()
        );
    }

    /// JSON values, also such as no configuration has.
    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // Sixteenths, for the JSON reader may be off by the last bit of other numbers.
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 16.0)),
            (0i32..20).prop_map(|n| Value::from(f64::from(n) / 16.0)),
            (0u64..100).prop_map(Value::from),
            "[a-z0-9_]{0,12}".prop_map(Value::from),
            Just(json!("gelu")),
            Just(json!("absolute")),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[0-9]{1,2}", inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn mutated_bytes_never_panic(changes in prop::collection::vec((0usize..1000, any::<u8>()), 1..4), cut in 0usize..1000) {
            let mut bytes = ROBERTA.as_bytes().to_vec();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(if cut % 2 == 0 { cut } else { bytes.len() });
            if let Ok(config) = EncoderConfig::from_bytes(Path::new("c"), &bytes) {
                check(&config);
            }
        }

        #[test]
        fn any_value_in_any_field_never_panics(field in 0usize..24, value in any_value()) {
            let names = ["id2label", "label2id", "problem_type", "classifier_dropout", "is_decoder",
                "position_embedding_type", "initializer_range", "attention_probs_dropout_prob"];
            let map: Map<String, Value> = serde_json::from_str(ROBERTA).unwrap();
            let name = map.keys().map(String::as_str).chain(names).nth(field).unwrap().to_string();
            if let Ok(config) = with(&name, value) {
                check(&config);
            }
        }
    }

    /// What every accepted configuration promises.
    fn check(config: &EncoderConfig) {
        assert!(config.head_size() * config.num_attention_heads == config.hidden_size);
        assert!(config.hidden_size > 0 && config.vocab_size > config.pad_token_id);
        assert!(config.max_tokens() > 0 && config.type_vocab_size > 0);
        assert!((0.0..1.0).contains(&config.head_dropout()));
        assert!(config.layer_norm_eps as f32 > 0.0);
        assert!((1..=MAX_LABELS).contains(&config.num_labels()));
        assert_eq!(
            parse(&config.to_json()).unwrap().to_json(),
            config.to_json()
        );
    }
}
