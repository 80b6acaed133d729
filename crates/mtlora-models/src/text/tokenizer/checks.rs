//! Refuses tokenizer files on which the tokenizer library would panic or read out of bounds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;

use crate::error::ModelError;
use crate::messages::shown;

/// The largest tokenizer file that is read, in bytes: about twice that of the largest published vocabularies.
pub(crate) const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// Refuses byte-pair merges whose result is not in the vocabulary. The library does not check them and would read past
/// the end of a buffer.
pub(crate) fn check_merges(path: &Path, file: &Value) -> Result<(), ModelError> {
    let model = file.get("model");
    let field = |name| model.and_then(|model| model.get(name));
    let (Some(vocabulary), Some(merges)) = (
        field("vocab").and_then(Value::as_object),
        field("merges").and_then(Value::as_array),
    ) else {
        return Ok(());
    };
    let prefix = field("continuing_subword_prefix")
        .and_then(Value::as_str)
        .map_or(0, str::len);
    for (number, merge) in merges.iter().enumerate() {
        let parts = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(parts) => match parts.as_slice() {
                [Value::String(a), Value::String(b)] => Some((a.as_str(), b.as_str())),
                _ => None,
            },
            _ => None,
        };
        let merged = parts.and_then(|(a, b)| Some(format!("{a}{}", b.get(prefix..)?)));
        if !merged.is_some_and(|merged| vocabulary.contains_key(&merged)) {
            return Err(ModelError::Tokenizer {
                path: path.to_path_buf(),
                message: format!(
                    "the result of merge number {number}, {}, is not in its vocabulary; download the file again",
                    shown(&merge.to_string())
                ),
            });
        }
    }
    Ok(())
}

/// Refuses a post-processor that uses undefined special tokens, on which the library panics.
pub(crate) fn check_template(path: &Path, processor: Option<&Value>) -> Result<(), ModelError> {
    let field = |name| processor.and_then(|processor| processor.get(name));
    let list = |name| field(name).and_then(Value::as_array).into_iter().flatten();
    for inner in list("processors") {
        check_template(path, Some(inner))?;
    }
    for piece in list("single").chain(list("pair")) {
        let id = piece.pointer("/SpecialToken/id").and_then(Value::as_str);
        let defined = field("special_tokens").and_then(Value::as_object);
        if let Some(id) = id
            && !defined.is_some_and(|defined| defined.contains_key(id))
        {
            return Err(ModelError::Tokenizer {
                path: path.to_path_buf(),
                message: format!(
                    "its post_processor uses {}, which is not among its special_tokens; download the file again",
                    shown(id)
                ),
            });
        }
    }
    Ok(())
}

/// Runs the tokenizer library on an untrusted file and turns a panic into an error: the library panics on some invalid
/// files.
pub(crate) fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the file is inconsistent; download it again".to_string()),
    }
}
