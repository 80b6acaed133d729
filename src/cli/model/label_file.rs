//! `labels.json` beside an adapter without a run: the class of each output of its head. PEFT's files have no place for that.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use mtlora::models::write_atomically;
use serde::{Deserialize, Serialize};

/// The file. `push` sends it with the adapter, and a name on the Hub is fetched with it.
const FILE: &str = "labels.json";
/// More than any list of classes has.
const MOST_BYTES: u64 = 1 << 20;

/// What is in the file, as in the `config.json` of a model.
#[derive(Serialize, Deserialize)]
struct Labels {
    id2label: BTreeMap<usize, String>,
    #[serde(default)]
    label2id: BTreeMap<String, usize>,
}

/// Writes the names of a head's outputs, in their order, into the folder of an adapter.
pub(crate) fn write(folder: &Path, names: &[String]) -> Result<(), Box<dyn Error>> {
    let numbered = || names.iter().cloned().enumerate();
    let labels = Labels {
        id2label: numbered().collect(),
        label2id: numbered().map(|(id, name)| (name, id)).collect(),
    };
    let text = serde_json::to_string_pretty(&labels)? + "\n";
    Ok(write_atomically(&folder.join(FILE), text.as_bytes())?)
}

/// Removes the file from a folder whose adapter has no names of classes.
pub(crate) fn remove(folder: &Path) -> Result<(), Box<dyn Error>> {
    let path = folder.join(FILE);
    if path.exists() {
        fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// The names of the outputs of an adapter's head, in their order; `None` if the folder does not have the file, or has another
/// one of this name.
///
/// # Errors
/// If the file cannot be read, or is about another number of outputs.
pub(crate) fn read(folder: &Path, outputs: usize) -> Result<Option<Vec<String>>, String> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let wrong = |message: String| {
        format!(
            "{}: {message}; correct the file, or remove it to use the adapter without names of classes",
            path.display()
        )
    };
    let length = fs::metadata(&path).map_err(|error| wrong(error.to_string()))?;
    if length.len() > MOST_BYTES {
        return Err(wrong("it is too long for a list of classes".to_string()));
    }
    let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    // Others may keep something else under this name.
    let Ok(labels) = serde_json::from_str::<Labels>(&text) else {
        return Ok(None);
    };
    if !labels.id2label.keys().copied().eq(0..outputs) {
        return Err(wrong(format!(
            "`id2label` must name the outputs of the adapter's head, 0 to {}",
            outputs.saturating_sub(1)
        )));
    }
    Ok(Some(labels.id2label.into_values().collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn classes_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), 2), Ok(None));
        let names: Vec<String> = (0..12).map(|at| format!("class {}", 12 - at)).collect();
        write(folder.path(), &names).unwrap();
        assert_eq!(read(folder.path(), 12), Ok(Some(names)));
        remove(folder.path()).unwrap();
        remove(folder.path()).unwrap();
        assert_eq!(read(folder.path(), 12), Ok(None));
        write(
            folder.path(),
            &["a".to_string(), "b".to_string(), "c".to_string()],
        )
        .unwrap();
        let message = read(folder.path(), 2).unwrap_err();
        assert!(
            message.contains("labels.json: `id2label` must name"),
            "{message}"
        );
        for text in ["", "[]", "{}", r#"{"id2label": {"a": "b"}}"#] {
            fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(read(folder.path(), 2), Ok(None), "{text}");
        }
    }
}
