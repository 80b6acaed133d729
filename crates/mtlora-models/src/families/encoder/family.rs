//! RoBERTa, XLM-RoBERTa, CamemBERT and BERT as one of the families.

use burn::tensor::Device;

use super::architecture::Architecture;
use super::classifier::EncoderClassifier;
use super::config::{EncoderConfig, EncoderSizes};
use super::masked_lm::EncoderMaskedLm;
use crate::error::ModelError;
use crate::families::classifier::{ClassifierConfig, ClassifierModelConfig, SequenceClassifier};
use crate::families::config_file::ConfigFile;
use crate::families::family::{ClassifierFamily, DefaultTargets, MaskedLmFamily, ModelFamily};
use crate::families::head::problem_type::ProblemType;
use crate::families::masked_lm::{MaskedLm, MaskedLmConfig, MaskedLmModelConfig};
use crate::families::operations::OperationCounter;
use crate::families::sizes::{ModelSizes, PublishedModel};

/// RoBERTa, XLM-RoBERTa, CamemBERT and BERT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EncoderFamily;

impl ModelFamily for EncoderFamily {
    fn model_types(&self) -> &[&'static str] {
        &Architecture::MODEL_TYPES
    }

    fn classifier(&self) -> Option<&dyn ClassifierFamily> {
        Some(self)
    }

    fn masked_lm(&self) -> Option<&dyn MaskedLmFamily> {
        Some(self)
    }

    /// Those of the paper's runs (arXiv 2403.07440).
    fn default_targets(&self) -> DefaultTargets {
        DefaultTargets {
            targets: "query,value",
            adalora: None,
            projections: None,
        }
    }

    /// RoBERTa-base (arXiv 1907.11692): 125 million parameters.
    fn published(&self) -> &[PublishedModel] {
        &[PublishedModel {
            name: "roberta-base",
            model_type: "roberta",
            sizes: ModelSizes {
                vocab_size: 50_265,
                hidden_size: 768,
                layers: 12,
                heads: 12,
                key_value_heads: None,
                head_width: None,
                intermediate_size: Some(3072),
                max_tokens: 512,
                end_of_text: None,
            },
        }]
    }
}

/// The configuration of a new encoder.
fn with_sizes(model_type: &str, sizes: &ModelSizes) -> Result<EncoderConfig, ModelError> {
    let mut known = Architecture::ALL.into_iter();
    let architecture = known
        .find(|one| one.model_type() == model_type)
        .unwrap_or(Architecture::Roberta);
    EncoderConfig::new(
        architecture,
        EncoderSizes {
            vocab_size: sizes.vocab_size,
            hidden_size: sizes.hidden_size,
            num_hidden_layers: sizes.layers,
            num_attention_heads: sizes.heads,
            intermediate_size: sizes.inner(),
            max_tokens: sizes.max_tokens,
        },
    )
}

impl ClassifierFamily for EncoderFamily {
    fn read(&self, file: &ConfigFile) -> Result<ClassifierConfig, ModelError> {
        Ok(ClassifierConfig::of(EncoderConfig::from_file(file)?))
    }

    fn with_sizes(
        &self,
        model_type: &str,
        sizes: &ModelSizes,
    ) -> Result<ClassifierConfig, ModelError> {
        Ok(ClassifierConfig::of(with_sizes(model_type, sizes)?))
    }
}

impl MaskedLmFamily for EncoderFamily {
    fn with_sizes(
        &self,
        model_type: &str,
        sizes: &ModelSizes,
    ) -> Result<MaskedLmConfig, ModelError> {
        let config = with_sizes(model_type, sizes)?.for_masked_lm();
        Ok(MaskedLmConfig::of(config))
    }
}

impl MaskedLmModelConfig for EncoderConfig {
    fn empty_masked_lm(&self, device: &Device) -> MaskedLm {
        MaskedLm::new(EncoderMaskedLm::empty(self, device))
    }
}

impl ClassifierModelConfig for EncoderConfig {
    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn problem_type(&self) -> ProblemType {
        self.effective_problem_type()
    }

    fn with_labels(
        &self,
        labels: Vec<String>,
        problem_type: ProblemType,
    ) -> Result<ClassifierConfig, ModelError> {
        let config = self.clone().with_classifier(labels, problem_type)?;
        Ok(ClassifierConfig::of(config))
    }

    fn empty(&self, device: &Device) -> SequenceClassifier {
        SequenceClassifier::new(EncoderClassifier::empty(self, device))
    }

    fn output_layer(&self) -> &[&'static str] {
        &["classifier.out_proj.weight", "classifier.out_proj.bias"]
    }

    fn is_optional(&self, name: &str) -> bool {
        name.starts_with("classifier.") || name.contains(".pooler.")
    }

    fn count_operations(&self, counter: &mut dyn OperationCounter, lengths: &[usize]) {
        let sum = |each: &dyn Fn(usize) -> usize| -> f64 {
            lengths.iter().map(|length| each(*length) as f64).sum()
        };
        let sequences = lengths.len() as f64;
        let tokens = sum(&|length| length);
        let [hidden, inner] = [self.hidden_size, self.intermediate_size];

        let embeddings = "base.embeddings";
        let mut tracked = counter.trains(embeddings);
        for table in [
            "word_embeddings",
            "position_embeddings",
            "token_type_embeddings",
        ] {
            tracked |= counter.embedding(&format!("{embeddings}.{table}"), tokens);
        }
        for layer in 0..self.num_hidden_layers {
            // A classifier reads only the first token of the last layer.
            let is_last = layer + 1 == self.num_hidden_layers;
            let (rows, pairs) = if is_last {
                (sequences, tokens)
            } else {
                (tokens, sum(&|length| length * length))
            };
            let at = |module: &str| format!("base.encoder.layer.{layer}.{module}");
            let square = [hidden, hidden];
            let query = counter.linear(&at("attention.self_.query"), rows, square, tracked);
            let key = counter.linear(&at("attention.self_.key"), tokens, square, tracked);
            let value = counter.linear(&at("attention.self_.value"), tokens, square, tracked);
            let context = counter.attention(pairs, hidden, [query, key, value]);
            let output = counter.linear(&at("attention.output.dense"), rows, square, context);
            let attended = tracked || output;
            let wide = counter.linear(&at("intermediate.dense"), rows, [hidden, inner], attended);
            tracked = attended | counter.linear(&at("output.dense"), rows, [inner, hidden], wide);
        }
        let pooled = if self.architecture.is_roberta() {
            "classifier.dense"
        } else {
            "base.pooler.dense"
        };
        tracked = counter.linear(pooled, sequences, [hidden, hidden], tracked);
        let labels = self.num_labels();
        counter.linear("classifier.out_proj", sequences, [hidden, labels], tracked);
    }
}
