use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use super::config::Gpt2Config;
use crate::error::{ModelError, start_of};
use crate::read::{read_bounded, required_file};
use crate::text::{
    MAX_TOKENIZER_BYTES, TOKENIZER_FILE, check_merges, check_template, guarded, input, is_padded,
};

/// Reads `tokenizer.json` of a folder.
///
/// # Errors
/// No such file, or one that is no tokenizer.
pub fn read_tokenizer(folder: &Path) -> Result<Tokenizer, ModelError> {
    let path = required_file(folder, TOKENIZER_FILE, || {
        "if it has vocab.json and merges.txt, convert them with Python's transformers: \
         AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            .to_string()
    })?;
    read_tokenizer_file(&path)
}

fn read_tokenizer_file(path: &Path) -> Result<Tokenizer, ModelError> {
    let bytes = read_bounded(path, MAX_TOKENIZER_BYTES)?;
    let value = serde_json::from_slice(&bytes).map_err(|error| ModelError::json(path, &error))?;
    check_merges(path, &value)?;
    check_template(path, value.get("post_processor"))?;
    guarded(|| Tokenizer::from_bytes(&bytes)).map_err(|message| ModelError::Tokenizer {
        path: path.to_path_buf(),
        message,
    })
}

/// A causal model's tokenizer: text to tokens and back, without special tokens around it.
#[derive(Clone, Debug)]
pub struct CausalText {
    tokenizer: Tokenizer,
    vocab_size: usize,
}

impl CausalText {
    /// Reads `tokenizer.json` of a model folder.
    ///
    /// # Errors
    /// No such file, or one that is no tokenizer; a vocabulary that is not the configuration's.
    pub fn from_folder(folder: &Path, config: &Gpt2Config) -> Result<Self, ModelError> {
        let tokenizer = read_tokenizer(folder)?;
        Self::new(folder.join(TOKENIZER_FILE), tokenizer, config.vocab_size)
    }

    /// Reads a `tokenizer.json` that lies anywhere.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_file(path: &Path, config: &Gpt2Config) -> Result<Self, ModelError> {
        let tokenizer = read_tokenizer_file(path)?;
        Self::new(path.to_path_buf(), tokenizer, config.vocab_size)
    }

    /// Checks and sets up a tokenizer that is in memory; `path` is for the messages.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn new(
        path: PathBuf,
        mut tokenizer: Tokenizer,
        vocab_size: usize,
    ) -> Result<Self, ModelError> {
        tokenizer.with_padding(None);
        guarded(|| tokenizer.with_truncation(None).map(|_| ())).map_err(|message| {
            ModelError::Tokenizer {
                path: path.clone(),
                message,
            }
        })?;
        let ids = tokenizer.get_vocab(true).into_values();
        let size = ids.max().map_or(0, |id| id as usize + 1);
        if size > vocab_size || !is_padded(size, vocab_size) {
            return Err(ModelError::VocabularySize {
                path,
                tokenizer: size,
                config: vocab_size,
            });
        }
        Ok(Self {
            tokenizer,
            vocab_size,
        })
    }

    /// The tokens of a text; none for an empty one.
    ///
    /// # Errors
    /// A text of more than a megabyte, or one that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let failed = |message| ModelError::Encode {
            start: start_of(text),
            message,
        };
        let input = input(text, None)?;
        let encoding = guarded(|| self.tokenizer.encode_fast(input, false)).map_err(failed)?;
        let ids = encoding.get_ids();
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(id) => Err(failed(format!(
                "the tokenizer gives the token {id}, but the model has only {}",
                self.vocab_size
            ))),
            None => Ok(ids.to_vec()),
        }
    }

    /// The text of tokens, special ones left out. Bytes that are no UTF-8 become `�`.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        guarded(|| self.tokenizer.decode(ids, true)).map_err(|message| ModelError::Encode {
            start: format!("{ids:?}"),
            message,
        })
    }
}
