//! The layout of the tensors of Llama-style decoders in Hugging Face's files.

use super::config::LlamaConfig;
use crate::files::weights::CheckpointLayout;

/// The name of the token embedding in a checkpoint.
pub(super) const WORD_EMBEDDINGS: &str = "model.embed_tokens.weight";
/// The name of the output map in a checkpoint.
pub(super) const OUTPUT_MAP: &str = "lm_head.weight";

impl CheckpointLayout for LlamaConfig {
    fn prefix(&self) -> String {
        "model.".to_string()
    }

    fn stored_name(&self, path: &str) -> String {
        match path.strip_suffix(".gamma") {
            Some(norm) => format!("{norm}.weight"),
            None => path.to_string(),
        }
    }

    fn transposes_linear(&self) -> bool {
        true
    }

    /// A file may have a shared weight under the name of the embedding, of the output map, or of both.
    fn tied_names(&self, name: &str) -> &'static [&'static str] {
        match name {
            WORD_EMBEDDINGS if self.tie_word_embeddings => &[OUTPUT_MAP],
            _ => &[],
        }
    }

    /// An output map that is the token embedding, and the angles of positions in old files, are not parameters of the
    /// model.
    fn foreign(&self, name: &str) -> bool {
        name == OUTPUT_MAP || name.ends_with("rotary_emb.inv_freq")
    }

    fn init_std(&self, _path: &str) -> f64 {
        self.initializer_range
    }

    fn to_json(&self) -> String {
        LlamaConfig::to_json(self)
    }

    fn task_type(&self) -> &'static str {
        "CAUSAL_LM"
    }
}
