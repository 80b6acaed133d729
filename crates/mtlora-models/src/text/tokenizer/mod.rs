//! Builds a model folder's tokenizer as `AutoTokenizer.from_pretrained` of transformers 5.24 does. `tokenizer.json`
//! alone does not determine how texts are split: the class that `tokenizer_config.json` names may use only its
//! vocabulary, and three other files can add tokens. See the tables in docs/MODEL_FILES.md.

mod build;
mod checks;
mod class;
mod files;
mod settings;
mod token;

pub(crate) use checks::{MAX_TOKENIZER_BYTES, check_merges, check_template, guarded};
pub(crate) use class::TokenizerOf;
pub(crate) use files::{JsonFile, TOKENIZER_CONFIG_FILE};
pub(crate) use settings::{TokenNames, TruncationSide};

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use crate::error::ModelError;
use build::{build, is_byte_pairs};
use class::TokenizerClass;
use files::TokenizerFiles;
use settings::TokenizerSettings;

/// A model folder's tokenizer, and the settings in its files that affect how texts are encoded and decoded.
#[derive(Debug)]
pub(crate) struct FolderTokenizer {
    /// The `tokenizer.json`, for messages.
    pub path: PathBuf,
    /// The tokenizer, with the truncation and padding of the file.
    pub tokenizer: Tokenizer,
    /// The side on which long texts are truncated, if a file names it.
    pub truncation_side: Option<TruncationSide>,
    /// The special tokens by their purpose.
    pub names: TokenNames,
    /// Whether the model uses token type ids, which say which text of a pair a token belongs to.
    pub token_types: bool,
    /// Whether spaces before punctuation are removed from generated text.
    pub cleans_up: bool,
}

impl FolderTokenizer {
    /// Reads the files of `folder`.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing, or a file or a setting in it is invalid.
    pub(crate) fn read(folder: &Path, of: TokenizerOf<'_>) -> Result<Self, ModelError> {
        let files = TokenizerFiles::read(folder)?;
        let class = TokenizerClass::of(&files, of)?;
        let settings = TokenizerSettings::resolve(&files, class)?;
        let tokenizer = build(&files, class, &settings, of.vocab_size)?;
        Ok(Self {
            path: files.tokenizer_path,
            truncation_side: settings.truncation_side,
            token_types: settings.token_types,
            cleans_up: if is_byte_pairs(&tokenizer) {
                settings.cleans_up_byte_pairs
            } else {
                settings.cleans_up
            },
            tokenizer,
            names: settings.names,
        })
    }
}

/// Whether a tokenizer class of that name is supported here.
pub(crate) fn is_known_class(name: &str) -> bool {
    TokenizerClass::named(name).is_some()
}

/// The longest sequence that a folder's tokenizer_config.json allows (`model_max_length` or `max_len`), in tokens.
/// transformers truncates texts to it unless another length is given. `None` if the file sets no limit, or a number so
/// large that it means no limit.
///
/// # Errors
/// When the file is not valid JSON, or the length is not a number.
pub fn model_max_length(folder: &Path) -> Result<Option<usize>, ModelError> {
    let Some(file) = JsonFile::read_if_there(folder, TOKENIZER_CONFIG_FILE)? else {
        return Ok(None);
    };
    settings::model_max_length(&file)
}
