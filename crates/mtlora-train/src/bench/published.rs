//! The published sizes of the models that are measured.

use mtlora_models::{Architecture, EncoderConfig, EncoderSizes, Gpt2Config, Gpt2Sizes, ModelError};

/// RoBERTa-base (arXiv 1907.11692): 125 million parameters.
///
/// # Errors
/// Never.
pub fn roberta_base() -> Result<EncoderConfig, ModelError> {
    EncoderConfig::new(
        Architecture::Roberta,
        EncoderSizes {
            vocab_size: 50_265,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_tokens: 512,
        },
    )
}

/// The smallest GPT-2: 124 million parameters.
///
/// # Errors
/// Never.
pub fn gpt2() -> Result<Gpt2Config, ModelError> {
    Gpt2Config::new(Gpt2Sizes {
        vocab_size: 50_257,
        n_embd: 768,
        n_layer: 12,
        n_head: 12,
        n_positions: 1024,
        end_of_text: 50_256,
    })
}
