//! Writes the model of a GGUF file as a Hugging Face folder.

use std::borrow::Cow;
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::decoder::Decoder;
use super::error::GgufError;
use super::file::GgufFile;
use super::tokenizer;
use crate::error::ModelError;
use crate::families::config_file::ConfigFile;
use crate::families::llama::LlamaConfig;
use crate::families::text_config::TextConfig;
use crate::files::names::{CONFIG_FILE, GENERATION_CONFIG_FILE, TOKENIZER_FILE};
use crate::files::save::{create_folder, write_atomically, write_checkpoint};
use crate::text::causal::CausalText;
use crate::text::tokenizer::{TOKENIZER_CONFIG_FILE, check_merges, guarded};

/// What [`convert_gguf`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedModel {
    /// The `model_type` of the folder's config.json.
    pub model_type: String,
    /// The number of values of all tensors.
    pub parameters: usize,
}

/// Reads a GGUF file of llama.cpp with a decoder of the architecture `llama`, `qwen2` or `qwen3`, and writes its model,
/// tokenizer, end tokens and chat template into `folder`, which is made if it does not exist: config.json,
/// model.safetensors in 32-bit floats, tokenizer.json, tokenizer_config.json, generation_config.json. Tensors may be F32,
/// F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K; quantized values are unpacked exactly.
///
/// # Errors
/// When the file is damaged, has something that is not supported (with its name), or the folder cannot be written.
pub fn convert_gguf(path: &Path, folder: &Path) -> Result<ConvertedModel, GgufError> {
    let file = GgufFile::open(path)?;
    let decoder = Decoder::of(&file)?;
    // What a model's folder cannot have is refused before anything is written.
    let map = decoder.config()?;
    let config_file = ConfigFile::from_map(map);
    let config = LlamaConfig::from_file(&config_file)?;
    let [tokenizer, tokenizer_config] = tokenizer::files(&file, config.max_tokens())?;
    let generation = tokenizer::generation_config(&file)?;
    check_merges(path, &tokenizer)?;
    let built = guarded(|| Tokenizer::from_bytes(tokenizer.to_string()));
    let built = built.map_err(|message| ModelError::Tokenizer {
        path: path.to_path_buf(),
        message,
    })?;
    CausalText::new(path.to_path_buf(), built, config.vocab_size())?;
    let mut parameters = 0;
    let mut tensors = Vec::new();
    for (name, stored) in decoder.tensors()? {
        let values = decoder.values(stored)?;
        let shape = file.tensors.get(stored).map(|info| info.shape.clone());
        parameters += values.len();
        tensors.push((name, shape.unwrap_or_default(), Cow::Owned(values)));
    }
    create_folder(folder)?;
    let texts = [
        (CONFIG_FILE, Value::Object(config_file.map().clone())),
        (TOKENIZER_FILE, tokenizer),
        (TOKENIZER_CONFIG_FILE, tokenizer_config),
        (GENERATION_CONFIG_FILE, generation),
    ];
    for (name, value) in texts {
        write_atomically(&folder.join(name), format!("{value:#}\n").as_bytes())?;
    }
    write_checkpoint(&folder.join("model.safetensors"), tensors)?;
    Ok(ConvertedModel {
        model_type: config.model_type().to_string(),
        parameters,
    })
}
