//! How GPT-2 is kept in Hugging Face's files.

use super::config::Gpt2Config;
use crate::files::weights::CheckpointLayout;

/// The token embeddings in a checkpoint.
pub(super) const WORD_EMBEDDINGS: &str = "transformer.wte.weight";
/// The output map in a checkpoint.
pub(super) const OUTPUT_MAP: &str = "lm_head.weight";

impl CheckpointLayout for Gpt2Config {
    fn prefix(&self) -> String {
        "transformer.".to_string()
    }

    fn stored_name(&self, path: &str) -> String {
        match path.strip_suffix(".gamma") {
            Some(norm) => format!("{norm}.weight"),
            None => path.replace(".beta", ".bias"),
        }
    }

    /// `Conv1D` keeps its weight as Burn's `Linear` does, `[in, out]`.
    fn transposes_linear(&self) -> bool {
        false
    }

    /// The embedding is the output map too: a file may have it by either name, or by both.
    fn tied_names(&self, name: &str) -> &'static [&'static str] {
        match name {
            WORD_EMBEDDINGS if self.tie_word_embeddings => &[OUTPUT_MAP],
            _ => &[],
        }
    }

    /// The output map, where it is the token embedding, and the causal masks of old files.
    fn foreign(&self, name: &str) -> bool {
        name == OUTPUT_MAP || name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
    }

    /// Maps into the residual stream start smaller, by the root of their number (section 2.3).
    fn init_std(&self, path: &str) -> f64 {
        if path.contains("c_proj") {
            self.initializer_range / (2.0 * self.n_layer as f64).sqrt()
        } else {
            self.initializer_range
        }
    }

    fn to_json(&self) -> String {
        Gpt2Config::to_json(self)
    }

    fn task_type(&self) -> &'static str {
        "CAUSAL_LM"
    }
}
