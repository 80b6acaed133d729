//! DeBERTa v2 and v3 as one of the families.

use burn::tensor::Device;

use super::classifier::DebertaClassifier;
use super::config::{DebertaConfig, MODEL_TYPE};
use crate::error::ModelError;
use crate::families::classifier::{ClassifierConfig, ClassifierModelConfig, SequenceClassifier};
use crate::families::config_file::ConfigFile;
use crate::families::family::{ClassifierFamily, DefaultTargets, ModelFamily};
use crate::families::head::problem_type::ProblemType;
use crate::families::operations::OperationCounter;
use crate::families::sizes::{ModelSizes, PublishedModel};

/// DeBERTa v2 and v3.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DebertaFamily;

impl ModelFamily for DebertaFamily {
    fn model_types(&self) -> &[&'static str] {
        &[MODEL_TYPE]
    }

    fn classifier(&self) -> Option<&dyn ClassifierFamily> {
        Some(self)
    }

    /// Those of the paper's runs with RoBERTa (arXiv 2403.07440), by DeBERTa's names; AdaLoRA's code adapts all six linear maps
    /// of a layer.
    fn default_targets(&self) -> DefaultTargets {
        DefaultTargets {
            targets: "query_proj,value_proj",
            adalora: Some(
                "query_proj,key_proj,value_proj,attention.output.dense,intermediate.dense,output.dense",
            ),
            projections: None,
        }
    }

    /// DeBERTaV3-base (arXiv 2111.09543): 184 million parameters.
    fn published(&self) -> &[PublishedModel] {
        &[PublishedModel {
            name: "deberta-v3-base",
            model_type: MODEL_TYPE,
            sizes: ModelSizes {
                vocab_size: 128_100,
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

impl ClassifierFamily for DebertaFamily {
    fn read(&self, file: &ConfigFile) -> Result<ClassifierConfig, ModelError> {
        Ok(ClassifierConfig::of(DebertaConfig::from_file(file)?))
    }

    fn with_sizes(&self, _: &str, sizes: &ModelSizes) -> Result<ClassifierConfig, ModelError> {
        Ok(ClassifierConfig::of(DebertaConfig::new(sizes)?))
    }
}

impl ClassifierModelConfig for DebertaConfig {
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
        SequenceClassifier::new(DebertaClassifier::empty(self, device))
    }

    fn output_layer(&self) -> &[&'static str] {
        &["classifier.out_proj.weight", "classifier.out_proj.bias"]
    }

    fn is_optional(&self, name: &str) -> bool {
        name.starts_with("classifier.") || name.starts_with("pooler.")
    }

    fn count_operations(&self, counter: &mut dyn OperationCounter, lengths: &[usize]) {
        let sum = |each: &dyn Fn(usize) -> usize| -> f64 {
            lengths.iter().map(|length| each(*length) as f64).sum()
        };
        let sequences = lengths.len() as f64;
        let tokens = sum(&|length| length);
        let [hidden, inner] = [self.hidden_size, self.intermediate_size];
        let square = [hidden, hidden];

        let embeddings = "base.embeddings";
        let mut tracked = counter.trains(embeddings);
        let tables = [
            Some("word_embeddings"),
            self.position_biased_input.then_some("position_embeddings"),
            (self.type_vocab_size > 0).then_some("token_type_embeddings"),
        ];
        for table in tables.into_iter().flatten() {
            tracked |= counter.embedding(&format!("{embeddings}.{table}"), tokens);
        }
        if self.embedding_size != hidden {
            let sides = [self.embedding_size, hidden];
            let map = format!("{embeddings}.embed_proj");
            tracked = counter.linear(&map, tokens, sides, tracked);
        }
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let rows_of = |length: usize| self.relative.map_or(0, |relative| relative.count(length));
        let position_rows = rows_of(longest) as f64;
        let positions = counter.embedding("base.encoder.rel_embeddings", position_rows)
            | counter.trains("base.encoder.layer_norm");
        for layer in 0..self.num_hidden_layers {
            // A classifier reads only the first token of the last layer.
            let is_last = layer + 1 == self.num_hidden_layers;
            let (rows, pairs) = if is_last {
                (sequences, tokens)
            } else {
                (tokens, sum(&|length| length * length))
            };
            let at = |module: &str| format!("base.encoder.layer.{layer}.{module}");
            let of_attention = |module: &str| at(&format!("attention.self_.{module}"));
            let query = counter.linear(&of_attention("query_proj"), rows, square, tracked);
            let key = counter.linear(&of_attention("key_proj"), tokens, square, tracked);
            let value = counter.linear(&of_attention("value_proj"), tokens, square, tracked);
            let own_maps = !self.share_att_key;
            let mut tables = false;
            for (is_read, of_tokens, name) in [
                (
                    self.content_to_position,
                    query,
                    ["pos_key_proj", "key_proj"],
                ),
                (
                    self.position_to_content,
                    key,
                    ["pos_query_proj", "query_proj"],
                ),
            ] {
                if self.relative.is_none() || !is_read {
                    continue;
                }
                let map = of_attention(name[usize::from(!own_maps)]);
                let table = counter.linear(&map, position_rows, square, positions);
                // Each token that is read with each row that its sequence needs.
                let pairs = match (is_last, name[1]) {
                    (true, "key_proj") => sum(&rows_of),
                    (true, _) => tokens,
                    (false, _) => sum(&|length| length * rows_of(length)),
                };
                tables |= counter.pair_products(pairs, hidden, [of_tokens, table]);
            }
            let context = tables | counter.attention(pairs, hidden, [query, key, value]);
            let output = counter.linear(&at("attention.output.dense"), rows, square, context);
            let attended = tracked || output;
            let wide = counter.linear(&at("intermediate.dense"), rows, [hidden, inner], attended);
            tracked = attended | counter.linear(&at("output.dense"), rows, [inner, hidden], wide);
        }
        tracked = counter.linear("classifier.pooler.dense", sequences, square, tracked);
        let labels = self.labels.len();
        counter.linear("classifier.out_proj", sequences, [hidden, labels], tracked);
    }
}
