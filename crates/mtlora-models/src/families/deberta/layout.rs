//! How DeBERTa is kept in Hugging Face's files.

use super::config::DebertaConfig;
use crate::files::weights::CheckpointLayout;

impl CheckpointLayout for DebertaConfig {
    fn prefix(&self) -> String {
        "deberta.".to_string()
    }

    fn stored_name(&self, path: &str) -> String {
        match path.strip_prefix("base.") {
            Some(rest) => {
                let rest = rest
                    .replace(".self_.", ".self.")
                    .replace("layer_norm.gamma", "LayerNorm.weight")
                    .replace("layer_norm.beta", "LayerNorm.bias");
                format!("{}{rest}", self.prefix())
            }
            None => path
                .replace("classifier.pooler.", "pooler.")
                .replace("classifier.out_proj.", "classifier."),
        }
    }

    fn transposes_linear(&self) -> bool {
        true
    }

    /// The heads of the pre-trained models, under their names in DeBERTa's own code and in transformers, and the absolute
    /// positions that files have although they are not used.
    fn foreign(&self, name: &str) -> bool {
        let heads = [
            "lm_predictions.",
            "mask_predictions.",
            "cls.",
            "lm_head.",
            "qa_outputs.",
        ];
        heads.iter().any(|head| name.starts_with(head))
            || !self.position_biased_input && name.contains("embeddings.position_embeddings.")
    }

    fn init_std(&self, _path: &str) -> f64 {
        self.initializer_range
    }

    fn to_json(&self) -> String {
        DebertaConfig::to_json(self)
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
        let config = DebertaConfig::new(&ModelSizes {
            vocab_size: 10,
            hidden_size: 4,
            layers: 1,
            heads: 1,
            key_value_heads: None,
            head_width: None,
            intermediate_size: None,
            max_tokens: 512,
            end_of_text: None,
        })
        .unwrap();
        for (path, expected) in [
            (
                "base.encoder.layer.3.attention.self_.query_proj.weight",
                "deberta.encoder.layer.3.attention.self.query_proj.weight",
            ),
            (
                "base.encoder.layer.0.attention.output.layer_norm.beta",
                "deberta.encoder.layer.0.attention.output.LayerNorm.bias",
            ),
            (
                "base.encoder.layer_norm.gamma",
                "deberta.encoder.LayerNorm.weight",
            ),
            (
                "base.encoder.rel_embeddings.weight",
                "deberta.encoder.rel_embeddings.weight",
            ),
            ("classifier.pooler.dense.bias", "pooler.dense.bias"),
            ("classifier.out_proj.weight", "classifier.weight"),
        ] {
            assert_eq!(config.stored_name(path), expected);
        }
        for name in [
            "lm_predictions.lm_head.bias",
            "mask_predictions.dense.weight",
            "cls.predictions.bias",
            "deberta.embeddings.position_embeddings.weight",
        ] {
            assert!(config.foreign(name), "{name}");
        }
        assert!(!config.foreign("deberta.embeddings.word_embeddings.weight"));
    }
}
