//! DistilBERT as one of the families.

use burn::tensor::Device;

use super::classifier::DistilBertClassifier;
use super::config::{DistilBertConfig, MODEL_TYPE};
use crate::error::ModelError;
use crate::families::classifier::{ClassifierConfig, ClassifierModelConfig, SequenceClassifier};
use crate::families::config_file::ConfigFile;
use crate::families::family::{ClassifierFamily, DefaultTargets, ModelFamily};
use crate::families::head::problem_type::ProblemType;
use crate::families::operations::OperationCounter;
use crate::families::sizes::ModelSizes;

/// DistilBERT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DistilBertFamily;

impl ModelFamily for DistilBertFamily {
    fn model_types(&self) -> &[&'static str] {
        &[MODEL_TYPE]
    }

    fn classifier(&self) -> Option<&dyn ClassifierFamily> {
        Some(self)
    }

    /// Those of the paper's runs with RoBERTa (arXiv 2403.07440), by DistilBERT's names.
    fn default_targets(&self) -> DefaultTargets {
        DefaultTargets {
            targets: "q_lin,v_lin",
            adalora: None,
            projections: None,
        }
    }
}

impl ClassifierFamily for DistilBertFamily {
    fn read(&self, file: &ConfigFile) -> Result<ClassifierConfig, ModelError> {
        Ok(ClassifierConfig::of(DistilBertConfig::from_file(file)?))
    }

    fn with_sizes(&self, _: &str, sizes: &ModelSizes) -> Result<ClassifierConfig, ModelError> {
        Ok(ClassifierConfig::of(DistilBertConfig::new(sizes)?))
    }
}

impl ClassifierModelConfig for DistilBertConfig {
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
        SequenceClassifier::new(DistilBertClassifier::empty(self, device))
    }

    fn output_layer(&self) -> &[&'static str] {
        &["classifier.out_proj.weight", "classifier.out_proj.bias"]
    }

    fn is_optional(&self, name: &str) -> bool {
        name.starts_with("classifier.") || name.starts_with("pre_classifier.")
    }

    fn count_operations(&self, counter: &mut dyn OperationCounter, lengths: &[usize]) {
        let sum = |each: &dyn Fn(usize) -> usize| -> f64 {
            lengths.iter().map(|length| each(*length) as f64).sum()
        };
        let sequences = lengths.len() as f64;
        let tokens = sum(&|length| length);
        let (square, inner) = ([self.dim, self.dim], self.hidden_dim);

        let embeddings = "base.embeddings";
        let mut tracked = counter.trains(embeddings);
        for table in ["word_embeddings", "position_embeddings"] {
            tracked |= counter.embedding(&format!("{embeddings}.{table}"), tokens);
        }
        for layer in 0..self.n_layers {
            // A classifier reads only the first token of the last layer.
            let is_last = layer + 1 == self.n_layers;
            let (rows, pairs) = if is_last {
                (sequences, tokens)
            } else {
                (tokens, sum(&|length| length * length))
            };
            let at = |module: &str| format!("base.transformer.layer.{layer}.{module}");
            let query = counter.linear(&at("attention.q_lin"), rows, square, tracked);
            let key = counter.linear(&at("attention.k_lin"), tokens, square, tracked);
            let value = counter.linear(&at("attention.v_lin"), tokens, square, tracked);
            let context = counter.attention(pairs, self.dim, [query, key, value]);
            let output = counter.linear(&at("attention.out_lin"), rows, square, context);
            let attended = tracked || output;
            let wide = counter.linear(&at("ffn.lin1"), rows, [self.dim, inner], attended);
            tracked = attended | counter.linear(&at("ffn.lin2"), rows, [inner, self.dim], wide);
        }
        tracked = counter.linear("classifier.pre_classifier", sequences, square, tracked);
        let labels = self.labels.len();
        counter.linear(
            "classifier.out_proj",
            sequences,
            [self.dim, labels],
            tracked,
        );
    }
}
