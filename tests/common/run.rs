//! What a run leaves behind.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Everything that a run ended with, except for times.
#[derive(PartialEq)]
pub struct Ended {
    /// Every tensor file: those of the trained values and of the last checkpoint.
    pub tensors: BTreeMap<String, Vec<u8>>,
    pub log: String,
    pub results: Value,
}

impl Ended {
    pub fn of(run: &Path) -> Self {
        let mut tensors = BTreeMap::new();
        let newest = checkpoints(run).pop().unwrap();
        for folder in [run.to_path_buf(), newest] {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "safetensors")
                {
                    let name = path
                        .strip_prefix(run)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_string();
                    tensors.insert(name, fs::read(&path).unwrap());
                }
            }
        }
        assert!(tensors.len() >= 2);
        let results = fs::read_to_string(run.join("results.json")).unwrap();
        let mut results: Value = serde_json::from_str(&results).unwrap();
        for time in ["train_seconds", "tokens_per_second", "peak_rss_mb"] {
            results.as_object_mut().unwrap().remove(time);
        }
        Self {
            tensors,
            log: fs::read_to_string(run.join("metrics.jsonl")).unwrap(),
            results,
        }
    }

    pub fn assert_same(&self, other: &Self, what: &str) {
        assert_eq!(self.log, other.log, "{what}");
        assert_eq!(self.results, other.results, "{what}");
        let names = |ended: &Self| ended.tensors.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(other), "{what}");
        for (name, bytes) in &self.tensors {
            assert!(*bytes == other.tensors[name], "{what}: {name} differs");
        }
    }
}

/// The folders of a run's checkpoints, oldest first.
pub fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
    folders.sort();
    folders
}
