//! How RoBERTa, BERT and their kin are kept in Hugging Face's files.

use super::config::EncoderConfig;
use crate::files::weights::CheckpointLayout;

impl CheckpointLayout for EncoderConfig {
    fn prefix(&self) -> String {
        format!("{}.", self.architecture.prefix())
    }

    fn stored_name(&self, path: &str) -> String {
        let name = match path.strip_prefix("base.") {
            Some(rest) => {
                let rest = rest
                    .replace(".self_.", ".self.")
                    .replace("layer_norm.gamma", "LayerNorm.weight")
                    .replace("layer_norm.beta", "LayerNorm.bias");
                format!("{}{rest}", self.prefix())
            }
            None => path
                .replace("layer_norm.gamma", "layer_norm.weight")
                .replace("layer_norm.beta", "layer_norm.bias"),
        };
        if self.architecture.is_roberta() {
            name
        } else {
            name.replace("classifier.out_proj.", "classifier.")
        }
    }

    fn transposes_linear(&self) -> bool {
        true
    }

    fn foreign(&self, name: &str) -> bool {
        ["lm_head.", "cls.", "qa_outputs."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name.starts_with("pooler.")
            || name.contains(".pooler.")
    }

    /// The word embeddings are the last map of a masked language model's head. `safetensors.torch.save_model` keeps
    /// of a RoBERTa only that name.
    fn tied_names(&self, name: &str) -> &'static [&'static str] {
        match name {
            "roberta.embeddings.word_embeddings.weight" if self.ties_word_embeddings() => {
                &["lm_head.decoder.weight"]
            }
            "bert.embeddings.word_embeddings.weight" if self.ties_word_embeddings() => {
                &["cls.predictions.decoder.weight"]
            }
            _ => &[],
        }
    }

    fn init_std(&self, _path: &str) -> f64 {
        self.initializer_range
    }

    fn to_json(&self) -> String {
        EncoderConfig::to_json(self)
    }

    fn task_type(&self) -> &'static str {
        "SEQ_CLS"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::encoder::architecture::Architecture;
    use crate::families::encoder::config::EncoderSizes;

    #[test]
    fn names_are_hugging_faces() {
        let sizes = EncoderSizes {
            vocab_size: 10,
            hidden_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            intermediate_size: 4,
            max_tokens: 8,
        };
        let name = |architecture, path| {
            let config = EncoderConfig::new(architecture, sizes);
            config.map(|config| config.stored_name(path)).ok()
        };
        let cases = [
            (
                Architecture::Roberta,
                "base.encoder.layer.3.attention.self_.query.weight",
                "roberta.encoder.layer.3.attention.self.query.weight",
            ),
            (
                Architecture::Roberta,
                "base.embeddings.layer_norm.gamma",
                "roberta.embeddings.LayerNorm.weight",
            ),
            (
                Architecture::Roberta,
                "lm_head.layer_norm.beta",
                "lm_head.layer_norm.bias",
            ),
            (
                Architecture::XlmRoberta,
                "classifier.out_proj.weight",
                "classifier.out_proj.weight",
            ),
            (
                Architecture::Camembert,
                "base.embeddings.word_embeddings.weight",
                "roberta.embeddings.word_embeddings.weight",
            ),
            (
                Architecture::Bert,
                "classifier.out_proj.weight",
                "classifier.weight",
            ),
        ];
        for (architecture, path, expected) in cases {
            assert_eq!(name(architecture, path).as_deref(), Some(expected));
        }
    }
}
