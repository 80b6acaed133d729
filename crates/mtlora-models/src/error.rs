//! The errors of reading and writing model folders and of encoding texts.

use std::io;
use std::path::{Path, PathBuf};

use crate::messages::{SHOWN, listed, shown};

/// Why a model folder could not be read or written, or why a text could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Values do not fit the model that they are loaded into.
    #[error(transparent)]
    State(#[from] mtlora_core::StateError),
    /// The device does not support the precision of the base model.
    #[error(transparent)]
    BaseDtype(#[from] mtlora_core::BaseDtypeError),
    /// The model needs an attention variant that is not supported.
    #[error(transparent)]
    Attention(#[from] crate::layers::attention::AttentionError),
    /// A GGUF file that cannot be read.
    #[error(transparent)]
    Gguf(Box<crate::gguf::GgufError>),
    /// A folder that lacks a file that every model folder has.
    #[error("{} is not a model folder: {missing}; {hint}", .folder.display())]
    NotAModelFolder {
        /// The folder.
        folder: PathBuf,
        /// What it lacks, such as "it has no config.json".
        missing: String,
        /// What to do.
        hint: String,
    },
    /// The operating system reported an error while reading.
    #[error("{}: cannot read: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A weight that is to be written is not finite. Such a file cannot be read again.
    #[error(
        "{}: the tensor {} has a value that is not finite, so the model would be useless and is not written; the \
         adapter or the training has diverged",
        .path.display(), shown(.name)
    )]
    NotFinite {
        /// The file that was to be written.
        path: PathBuf,
        /// The name of the tensor.
        name: String,
    },
    /// A value that is to be written is too large for the precision.
    #[error(
        "{}: cannot write {} in {precision}: it has values that are too large for that; use bf16 or f32",
        .path.display(), shown(.name)
    )]
    TooLarge {
        /// The file that was to be written.
        path: PathBuf,
        /// The name of the tensor.
        name: String,
        /// The precision.
        precision: String,
    },
    /// The operating system reported an error while writing, for instance because the disk is full. No partial file is
    /// left behind.
    #[error("{}: cannot write: {source}; no partial file was left behind", .path.display())]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file that is larger than any valid file of its kind.
    #[error("{}: has {bytes} bytes, but at most {limit} are allowed for such a file; is it the right file?", .path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, in bytes.
        bytes: u64,
        /// The largest size that is read, in bytes.
        limit: u64,
    },
    /// A file that is not valid JSON, or whose JSON has an unexpected form.
    #[error("{}:{line}:{column}: invalid JSON: {message}; correct the file or download it again", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line of the error, counted from 1.
        line: usize,
        /// The column of the error, counted from 1 (0: at the end of the line).
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A required field that is missing from the configuration.
    #[error("{}: has no field `{field}`, which {wanted}; add it, or download the file again", .path.display())]
    MissingField {
        /// The configuration file.
        path: PathBuf,
        /// The field's name.
        field: &'static str,
        /// The field's meaning, such as "is the number of attention heads".
        wanted: &'static str,
    },
    /// A field of the configuration with an invalid value.
    #[error("{}: field `{field}` {message}", at(.path, *.line))]
    Field {
        /// The configuration file.
        path: PathBuf,
        /// The line of the field, if it could be determined.
        line: Option<usize>,
        /// The field's name.
        field: String,
        /// What is wrong with its value, and which values are allowed.
        message: String,
    },
    /// A model whose architecture this crate does not support.
    #[error("{}: the architecture {} is not supported, only {}; choose a model with one of these architectures", .path.display(), shown(.found), listed(.supported))]
    UnsupportedArchitecture {
        /// The configuration file.
        path: PathBuf,
        /// Its `model_type`.
        found: String,
        /// The supported `model_type`s.
        supported: Vec<&'static str>,
    },
    /// A tensor file that ends too early, or whose header is invalid.
    #[error("{}: corrupt tensor file: {message}; download or save it again", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The index of a sharded checkpoint does not match its shards.
    #[error("{}: {message}; download the folder again", .path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A tensor file without some of the model's tensors.
    #[error("{}: {} missing: {}; do config.json and the tensors belong to the same model?", .path.display(), counted(.names.len(), "tensor is", "tensors are"), listed(.names))]
    MissingTensors {
        /// The file or folder.
        path: PathBuf,
        /// The names of the missing tensors.
        names: Vec<String>,
    },
    /// A tensor file with tensors that the model does not have.
    #[error("{}: {} unexpected: {}; do config.json and the tensors belong to the same model?", .path.display(), counted(.names.len(), "tensor is", "tensors are"), listed(.names))]
    UnexpectedTensors {
        /// The file or folder.
        path: PathBuf,
        /// The names of the unexpected tensors.
        names: Vec<String>,
    },
    /// A classification head whose number of outputs differs from the number of labels.
    #[error(
        "{}: the model's classification head has {found} outputs, but {wanted} are needed; start with a new output \
         layer (--fresh-head), or use a model that was trained on these labels",
        .folder.display()
    )]
    HeadSize {
        /// The model folder.
        folder: PathBuf,
        /// The number of outputs of the head in the folder.
        found: usize,
        /// The number of outputs that are needed.
        wanted: usize,
    },
    /// A tensor whose shape differs from the one that the configuration gives.
    #[error("{}: tensor {} has shape {found:?}, but config.json asks for {expected:?}; do both belong to the same model?", .path.display(), shown(.name))]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor with an element type that is not supported for weights.
    #[error("{}: tensor {} is of type {dtype}, but only F32, F16 and BF16 are supported; save the model in one of these types (for quantized weights, use the original model)", .path.display(), shown(.name))]
    UnsupportedDtype {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The type, as the file names it.
        dtype: String,
    },
    /// A weight that is infinite or NaN.
    #[error("{}: tensor {} holds {value} at element {index}; the model is damaged, download it again", .path.display(), shown(.name))]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The element's index in row-major order, counted from 0.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A tensor that cannot be written, because its shape and number of elements disagree or its name is already in
    /// use.
    #[error("{}: cannot write tensor {}: {message}", .path.display(), shown(.name))]
    BadTensor {
        /// The file that was to be written.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A tokenizer file that the tokenizer library rejects.
    #[error("{}: cannot use the tokenizer: {message}", .path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A tokenizer that was made for another model.
    #[error("{}: the tokenizer has {tokenizer} tokens, but config.json says vocab_size {config}; take both files from the same model", .path.display())]
    VocabularySize {
        /// The tokenizer's file.
        path: PathBuf,
        /// The number of token ids that the tokenizer needs: its largest id plus one.
        tokenizer: usize,
        /// The configuration's `vocab_size`.
        config: usize,
    },
    /// A maximum sequence length that leaves no room for text.
    #[error(
        "max_length {asked} is too short: it must fit {special} special tokens and some text; use {least} or more"
    )]
    MaxLength {
        /// The length asked for, in tokens.
        asked: usize,
        /// The number of special tokens around a pair of texts.
        special: usize,
        /// The shortest length that works.
        least: usize,
    },
    /// One of several texts that cannot be encoded.
    #[error("text number {number}: {source}")]
    OneOf {
        /// Its position in the list of texts, counted from 1.
        number: usize,
        /// Why it cannot be encoded.
        source: Box<ModelError>,
    },
    /// A text that is too long to be tokenised in one piece.
    #[error("a text of {bytes} bytes that begins {} is too long to be tokenised; the limit is {limit} bytes for a pair, or for a text with few spaces; shorten it", shown(.start))]
    TextTooLong {
        /// Its size, in bytes.
        bytes: usize,
        /// The largest size, in bytes.
        limit: usize,
        /// How the text begins.
        start: String,
    },
    /// A text that the tokenizer cannot encode.
    #[error("cannot encode the text {}: {message}", shown(.start))]
    Encode {
        /// How the text begins.
        start: String,
        /// The tokenizer's reason.
        message: String,
    },
    /// A tokenizer that could not be trained.
    #[error("cannot train a tokenizer: {message}")]
    Training {
        /// What is wrong, and what to do.
        message: String,
    },
}

impl From<crate::gguf::GgufError> for ModelError {
    fn from(error: crate::gguf::GgufError) -> Self {
        match error {
            crate::gguf::GgufError::Model(error) => error,
            other => Self::Gguf(Box::new(other)),
        }
    }
}

impl ModelError {
    /// Replaces the number of the text in [`Self::OneOf`] by what `place` returns for it; other errors stay as they
    /// are.
    pub fn renumbered(mut self, place: impl Fn(usize) -> usize) -> Self {
        if let Self::OneOf { number, .. } = &mut self {
            *number = place(*number);
        }
        self
    }

    /// An error of the operating system while reading `path`.
    pub fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// An error of the operating system while writing `path`.
    pub fn write(path: &Path, source: io::Error) -> Self {
        Self::Write {
            path: path.to_path_buf(),
            source,
        }
    }

    /// An error of the JSON parser about `path`.
    pub(crate) fn json(path: &Path, error: &serde_json::Error) -> Self {
        // The parser's message ends in " at line L column C", which our message already gives.
        let text = error.to_string();
        let end = text.rfind(" at line ").unwrap_or(text.len());
        Self::Json {
            path: path.to_path_buf(),
            line: error.line(),
            column: error.column(),
            message: text.get(..end).unwrap_or(&text).to_string(),
        }
    }

    /// A damaged tensor file.
    pub(crate) fn corrupt(path: &Path, message: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }
}

/// A file's path, with the line number if it is known.
fn at(path: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    }
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The first characters of a text, for use in a message.
pub(crate) fn start_of(text: &str) -> String {
    text.chars().take(SHOWN + 1).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn long_lists_name_the_first_and_count_the_rest() {
        let names: Vec<String> = (0..11).map(|n| format!("t{n}")).collect();
        let error = ModelError::MissingTensors {
            path: "m/model.safetensors".into(),
            names,
        };
        assert_eq!(
            error.to_string(),
            "m/model.safetensors: 11 tensors are missing: `t0`, `t1`, `t2`, `t3`, `t4`, `t5`, `t6`, `t7` and 3 more; \
             do config.json and the tensors belong to the same model?"
        );
        let error = ModelError::UnexpectedTensors {
            path: "m".into(),
            names: vec!["x".into()],
        };
        assert!(
            error
                .to_string()
                .starts_with("m: 1 tensor is unexpected: `x`;")
        );
    }

    #[test]
    fn json_errors_say_the_place_once() {
        let error = serde_json::from_str::<serde_json::Value>("{\n \"a\": ]}").unwrap_err();
        let text = ModelError::json(Path::new("config.json"), &error).to_string();
        assert!(
            text.starts_with("config.json:2:7: invalid JSON: "),
            "{text}"
        );
        assert!(!text.contains("at line"), "{text}");
    }
}
