//! The files that a tokenizer is built from.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::checks::MAX_TOKENIZER_BYTES;
use crate::error::ModelError;
use crate::files::fields::Fields;
use crate::files::names::TOKENIZER_FILE;
use crate::files::read::{is_there, read_bounded, required_file};

/// The settings of the tokenizer class.
pub(crate) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// The file in which older versions of transformers wrote the special tokens.
const SPECIAL_TOKENS_MAP_FILE: &str = "special_tokens_map.json";
/// The file in which older versions of transformers wrote the tokens that were added to the vocabulary.
const ADDED_TOKENS_FILE: &str = "added_tokens.json";
/// The largest of these files that is read, in bytes. Even large ones hold only a few thousand added tokens.
const MAX_SETTINGS_BYTES: u64 = 16 << 20;

/// A JSON file that holds one object.
pub(crate) struct JsonFile {
    path: PathBuf,
    text: String,
    /// The object.
    pub(crate) map: Map<String, Value>,
}

impl JsonFile {
    /// Reads a file of `folder` if it exists.
    ///
    /// # Errors
    /// When the file cannot be read, is too large, or does not hold a JSON object.
    pub(crate) fn read_if_there(folder: &Path, name: &str) -> Result<Option<Self>, ModelError> {
        let path = folder.join(name);
        if !is_there(&path) {
            return Ok(None);
        }
        let bytes = read_bounded(&path, MAX_SETTINGS_BYTES)?;
        let map =
            serde_json::from_slice(&bytes).map_err(|error| ModelError::json(&path, &error))?;
        Ok(Some(Self {
            path,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            map,
        }))
    }

    /// Stands for a missing file: an object without fields.
    fn absent(folder: &Path, name: &str) -> Self {
        Self {
            path: folder.join(name),
            text: String::new(),
            map: Map::new(),
        }
    }

    /// The fields, with the context that error messages need.
    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields {
            path: &self.path,
            text: &self.text,
            map: &self.map,
        }
    }

    /// A field's value; `null` counts as absent.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// The value of a boolean field, if it is present and not null.
    ///
    /// # Errors
    /// When the value is neither true nor false.
    pub(crate) fn flag(&self, field: &str) -> Result<Option<bool>, ModelError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(
                field,
                format!("is {}, but must be true or false", shown(other)),
            )),
        }
    }

    /// The value of a string field, if it is present and not null.
    ///
    /// # Errors
    /// When the value is not a string.
    pub(super) fn string(&self, field: &str) -> Result<Option<&str>, ModelError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => {
                Err(self.wrong(field, format!("is {}, but must be a name", shown(other))))
            }
        }
    }

    /// An error about a field.
    pub(super) fn wrong(&self, field: &str, message: String) -> ModelError {
        self.fields().wrong(field, message)
    }
}

/// A value in the form that messages show.
pub(super) fn shown(value: &Value) -> String {
    crate::files::fields::brief(value)
}

/// The files of one folder.
pub(super) struct TokenizerFiles {
    /// The path of `tokenizer.json`.
    pub(super) tokenizer_path: PathBuf,
    /// Its bytes.
    pub(super) tokenizer_bytes: Vec<u8>,
    /// What they say.
    pub(super) tokenizer: Value,
    /// `tokenizer_config.json`; without fields if the file is missing.
    pub(super) config: JsonFile,
    /// `special_tokens_map.json`.
    pub(super) special_tokens_map: Option<JsonFile>,
    /// `added_tokens.json`.
    pub(super) added_tokens: Option<JsonFile>,
}

impl TokenizerFiles {
    /// Reads the files of a folder.
    pub(super) fn read(folder: &Path) -> Result<Self, ModelError> {
        let tokenizer_path = required_file(folder, TOKENIZER_FILE, || {
            "if it has vocab.txt, or vocab.json and merges.txt, convert them with Python's transformers: \
             AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
                .to_string()
        })?;
        let bytes = read_bounded(&tokenizer_path, MAX_TOKENIZER_BYTES)?;
        let tokenizer = serde_json::from_slice(&bytes)
            .map_err(|error| ModelError::json(&tokenizer_path, &error))?;
        let config = JsonFile::read_if_there(folder, TOKENIZER_CONFIG_FILE)?
            .unwrap_or_else(|| JsonFile::absent(folder, TOKENIZER_CONFIG_FILE));
        refuse_versions(folder, &config)?;
        Ok(Self {
            tokenizer_path,
            tokenizer_bytes: bytes,
            tokenizer,
            config,
            special_tokens_map: JsonFile::read_if_there(folder, SPECIAL_TOKENS_MAP_FILE)?,
            added_tokens: JsonFile::read_if_there(folder, ADDED_TOKENS_FILE)?,
        })
    }

    /// The value of `field` in `tokenizer.json`, if it is present and not null.
    pub(super) fn of_tokenizer(&self, field: &str) -> Option<&Value> {
        self.tokenizer.get(field).filter(|value| !value.is_null())
    }
}

/// Refuses a folder whose settings name a different tokenizer file for newer versions of transformers, which would read
/// that file instead.
fn refuse_versions(folder: &Path, config: &JsonFile) -> Result<(), ModelError> {
    let field = "fast_tokenizer_files";
    for name in config.fields().strings(field)? {
        if name != TOKENIZER_FILE && folder.join(&name).exists() {
            let message = format!(
                "names {}, which transformers reads in place of {TOKENIZER_FILE}; copy it over that file, and remove \
                 the field",
                crate::messages::shown(&name)
            );
            return Err(config.wrong(field, message));
        }
    }
    Ok(())
}
