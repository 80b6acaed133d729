//! Reads the small files of a model folder, with limits on their size.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::ModelError;
use crate::files::names::{ADAPTER_CONFIG_FILE, CONFIG_FILE};
use crate::gguf::model::{companion, is_gguf, read_companion};

/// Opens `path` for reading and returns its length in bytes as well. Anything but a regular file is refused before it
/// is opened, because opening a pipe would wait for its other end.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), ModelError> {
    let metadata = fs::metadata(path).map_err(|source| ModelError::io(path, source))?;
    if !metadata.is_file() {
        let source = std::io::Error::other("not a regular file");
        return Err(ModelError::io(path, source));
    }
    let file = File::open(path).map_err(|source| ModelError::io(path, source))?;
    Ok((file, metadata.len()))
}

/// Whether a model folder has a file, or a GGUF file in its place says what the file would say.
pub(crate) fn is_there(path: &Path) -> bool {
    path.exists() || companion(path).is_some()
}

/// The contents of a file of at most `limit` bytes; of a file within a GGUF file, what it would say.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ModelError> {
    if let Some((file, name)) = companion(path) {
        return Ok(read_companion(file, name)?);
    }
    let (file, length) = open_file(path)?;
    if length > limit {
        return Err(ModelError::FileTooLarge {
            path: path.to_path_buf(),
            bytes: length,
            limit,
        });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // The file can grow after its length was checked.
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| ModelError::io(path, source))?;
    Ok(bytes)
}

/// The path of a file that a model folder must have. `hint` says what to do if it is missing.
pub(crate) fn required_file(
    folder: &Path,
    name: &str,
    hint: impl FnOnce() -> String,
) -> Result<PathBuf, ModelError> {
    require_folder(folder)?;
    let path = folder.join(name);
    if is_there(&path) {
        return Ok(path);
    }
    let is_adapter = name == CONFIG_FILE && folder.join(ADAPTER_CONFIG_FILE).exists();
    Err(ModelError::NotAModelFolder {
        folder: folder.to_path_buf(),
        missing: format!("it has no {name}"),
        hint: if is_adapter {
            "it is a run or an adapter: use it as --run or --adapter, or fold it into its base model with `mtlora \
             merge` and use the folder that it writes"
                .to_string()
        } else {
            hint()
        },
    })
}

/// Refuses a path that is not a folder.
pub(crate) fn require_folder(folder: &Path) -> Result<(), ModelError> {
    if folder.is_dir() || is_gguf(folder) {
        return Ok(());
    }
    let missing = if folder.exists() {
        "it is a file"
    } else {
        "it does not exist"
    };
    Err(ModelError::NotAModelFolder {
        folder: folder.to_path_buf(),
        missing: missing.to_string(),
        hint: "give the folder that holds config.json, model.safetensors and tokenizer.json"
            .to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_regular_files_up_to_the_limit_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, [0; 10]).unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap().len(), 10);
        assert!(matches!(
            read_bounded(&path, 9),
            Err(ModelError::FileTooLarge { bytes: 10, .. })
        ));
        assert!(matches!(
            read_bounded(folder.path(), 9),
            Err(ModelError::Io { .. })
        ));
        let error = required_file(folder.path(), "config.json", || "do so".into()).unwrap_err();
        assert!(error.to_string().ends_with("has no config.json; do so"));
        let error = require_folder(&path).unwrap_err();
        assert!(error.to_string().contains("it is a file"));
        let error = require_folder(&path.join("x")).unwrap_err();
        assert!(error.to_string().contains("it does not exist"));
    }
}
