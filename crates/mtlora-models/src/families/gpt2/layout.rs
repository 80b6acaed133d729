//! The layout of GPT-2's tensors in Hugging Face's files.

use super::config::Gpt2Config;
use crate::files::weights::CheckpointLayout;

/// The name of the token embedding in a checkpoint.
pub(super) const WORD_EMBEDDINGS: &str = "transformer.wte.weight";
/// The name of the output map in a checkpoint.
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

    /// `Conv1D` stores its weight as `[in, out]`, as Burn's `Linear` does.
    fn transposes_linear(&self) -> bool {
        false
    }

    /// A file may have a shared weight under the name of the embedding, of the output map, or of both.
    fn tied_names(&self, name: &str) -> &'static [&'static str] {
        match name {
            WORD_EMBEDDINGS if self.tie_word_embeddings => &[OUTPUT_MAP],
            _ => &[],
        }
    }

    /// An output map that is the token embedding, and the causal masks of old files, are not parameters of the model.
    fn foreign(&self, name: &str) -> bool {
        name == OUTPUT_MAP || name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
    }

    /// The initial weights of maps into the residual stream are divided by the square root of the number of these
    /// maps (section 2.3).
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
