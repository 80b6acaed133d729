//! A model folder's config.json, before it is known which family it is of.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::ModelError;
use crate::files::fields::Fields;
use crate::files::names::CONFIG_FILE;
use crate::files::read::{read_bounded, required_file};

/// The largest configuration that is read, in bytes: room for tens of thousands of labels.
const MAX_BYTES: u64 = 8 << 20;

/// The fields of a config.json. Its `model_type` says which family reads the rest.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    map: Map<String, Value>,
}

impl ConfigFile {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// No folder, no such file, or not a JSON object.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let path = required_file(folder, CONFIG_FILE, || {
            "give the folder that holds config.json, model.safetensors and tokenizer.json"
                .to_string()
        })?;
        let bytes = read_bounded(&path, MAX_BYTES)?;
        Self::from_bytes(&path, &bytes)
    }

    /// Reads the bytes of a `config.json`; `path` is for the messages.
    ///
    /// # Errors
    /// When they are not a JSON object.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, ModelError> {
        let map = serde_json::from_slice(bytes).map_err(|error| ModelError::json(path, &error))?;
        Ok(Self {
            path: path.to_path_buf(),
            text: String::from_utf8_lossy(bytes).into_owned(),
            map,
        })
    }

    /// A configuration that is not in a file yet.
    pub fn from_map(map: Map<String, Value>) -> Self {
        Self {
            path: PathBuf::from(CONFIG_FILE),
            text: String::new(),
            map,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All fields, in the file's order.
    pub fn map(&self) -> &Map<String, Value> {
        &self.map
    }

    /// Which architecture the model has. A value that is not a string is given as the file writes it; no family is
    /// called so.
    ///
    /// # Errors
    /// When the file does not say it.
    pub fn model_type(&self) -> Result<String, ModelError> {
        let fields = self.fields();
        let value = fields
            .get("model_type")
            .ok_or_else(|| fields.missing("model_type", "says which architecture the model has"))?;
        Ok(value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_string))
    }

    /// A whole number that the model needs; `what` completes "has no field, which ...", such as
    /// "is the number of layers".
    ///
    /// # Errors
    /// When the field is missing or out of `range`, with the file and its name.
    pub fn size(
        &self,
        field: &'static str,
        what: &'static str,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        self.fields().size(field, what, range)
    }

    /// The error for a file whose architecture is not one of `supported`.
    pub(crate) fn unsupported(&self, supported: Vec<&'static str>) -> ModelError {
        ModelError::UnsupportedArchitecture {
            path: self.path.clone(),
            found: self.model_type().unwrap_or_default(),
            supported,
        }
    }

    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields {
            path: &self.path,
            text: &self.text,
            map: &self.map,
        }
    }
}
