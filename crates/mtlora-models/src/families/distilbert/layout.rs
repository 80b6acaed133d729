//! How DistilBERT is kept in Hugging Face's files.

use super::config::DistilBertConfig;
use crate::files::weights::CheckpointLayout;

impl CheckpointLayout for DistilBertConfig {
    fn prefix(&self) -> String {
        "distilbert.".to_string()
    }

    fn stored_name(&self, path: &str) -> String {
        let path = path
            .replace("norm.gamma", "norm.weight")
            .replace("norm.beta", "norm.bias");
        match path.strip_prefix("base.") {
            Some(rest) => {
                let rest = rest.replace("embeddings.layer_norm.", "embeddings.LayerNorm.");
                format!("{}{rest}", self.prefix())
            }
            None => path
                .replace("classifier.pre_classifier.", "pre_classifier.")
                .replace("classifier.out_proj.", "classifier."),
        }
    }

    fn transposes_linear(&self) -> bool {
        true
    }

    fn foreign(&self, name: &str) -> bool {
        let heads = [
            "vocab_transform.",
            "vocab_layer_norm.",
            "vocab_projector.",
            "qa_outputs.",
        ];
        heads.iter().any(|head| name.starts_with(head))
    }

    /// The word embeddings are the last map of a masked language model's head.
    fn tied_names(&self, name: &str) -> &'static [&'static str] {
        match name {
            "distilbert.embeddings.word_embeddings.weight" => &["vocab_projector.weight"],
            _ => &[],
        }
    }

    fn init_std(&self, _path: &str) -> f64 {
        self.initializer_range
    }

    fn to_json(&self) -> String {
        DistilBertConfig::to_json(self)
    }

    fn task_type(&self) -> &'static str {
        "SEQ_CLS"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::families::sizes::ModelSizes;

    #[test]
    fn names_are_hugging_faces() {
        let config = DistilBertConfig::new(&ModelSizes {
            vocab_size: 10,
            hidden_size: 4,
            layers: 1,
            heads: 1,
            key_value_heads: None,
            head_width: None,
            intermediate_size: None,
            max_tokens: 16,
            end_of_text: None,
        })
        .unwrap();
        for (path, expected) in [
            (
                "base.embeddings.layer_norm.gamma",
                "distilbert.embeddings.LayerNorm.weight",
            ),
            (
                "base.transformer.layer.2.sa_layer_norm.beta",
                "distilbert.transformer.layer.2.sa_layer_norm.bias",
            ),
            (
                "base.transformer.layer.0.attention.q_lin.weight",
                "distilbert.transformer.layer.0.attention.q_lin.weight",
            ),
            (
                "base.transformer.layer.0.ffn.lin1.bias",
                "distilbert.transformer.layer.0.ffn.lin1.bias",
            ),
            ("classifier.pre_classifier.weight", "pre_classifier.weight"),
            ("classifier.out_proj.bias", "classifier.bias"),
        ] {
            assert_eq!(config.stored_name(path), expected);
        }
        assert!(config.foreign("vocab_layer_norm.weight"));
    }
}
