//! How a chat model's answers are decoded.

use std::error::Error;
use std::path::Path;

use mtlora::models::{
    CausalModelConfig, CausalText, ChatError, ChatTemplate, GenerationConfig, TextConfig,
};

/// The most tokens of an answer, if the model's folder names no other number.
pub(crate) const ANSWER_TOKENS: usize = 512;

/// The decoding settings in a model's folder. Besides the tokens that generation_config.json names, the model's end of text
/// and the token with which its chat template ends a turn end an answer.
pub(crate) fn decoding<C: CausalModelConfig + TextConfig>(
    folder: &Path,
    config: &C,
    text: &CausalText,
) -> Result<GenerationConfig, Box<dyn Error>> {
    let usual = GenerationConfig {
        max_new_tokens: ANSWER_TOKENS,
        ..GenerationConfig::default()
    };
    let mut decoding = GenerationConfig::from_folder_over(folder, config.vocab_size(), usual)?;
    let of_template = match ChatTemplate::from_folder(folder, text) {
        Ok(template) => template.end_of_turn(text)?,
        Err(ChatError::NoTemplate { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    for end in [Some(config.end_of_text()), of_template]
        .into_iter()
        .flatten()
    {
        if !decoding.eos_token_ids.contains(&end) {
            decoding.eos_token_ids.push(end);
        }
    }
    Ok(decoding)
}
