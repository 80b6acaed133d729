//! How llama.cpp has Llama-style decoders (`conversion/llama.py`, `mistral.py` and `qwen.py` in its sources).

use super::config::LlamaConfig;
use crate::families::causal::LlamaCppLayout;
use crate::gguf::names::llama_cpp_name;

impl LlamaCppLayout for LlamaConfig {
    /// A Mistral is a `llama` there.
    fn architecture(&self) -> &'static str {
        match self.architecture.model_type {
            "mistral" => "llama",
            other => other,
        }
    }

    fn tensor_name(&self, name: &str) -> Option<String> {
        llama_cpp_name(name)
    }

    fn paired_heads(&self, module: &str) -> Option<usize> {
        let is_turned = ["q_proj", "k_proj"].iter().any(|end| module.ends_with(end));
        let turns_neighbours = ["llama", "smollm3"].contains(&LlamaCppLayout::architecture(self));
        (is_turned && turns_neighbours).then_some(self.head_dim)
    }
}
