//! Resolves a repository's name to a folder that has the files which are needed of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;

use crate::environment::HubConfig;
use crate::error::HubError;
use crate::name::{RepoId, RepoKind, check_path};
use crate::progress::Progress;
use crate::snapshot::{Snapshot, read_small};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The weights of models older than safetensors. They are downloaded only where there are no safetensors.
const PICKLE: &str = "pytorch_model.bin";
const PICKLE_INDEX: &str = "pytorch_model.bin.index.json";
const TOKENIZER: &str = "tokenizer.json";
/// Small files that a model may have besides: its generation settings and its tokenizer's files.
const OPTIONAL: [&str; 7] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];
const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
const ADAPTER_PICKLE: &str = "adapter_model.bin";
/// The classes of an adapter's head.
const ADAPTER_LABELS: &str = "labels.json";
/// The largest index of a checkpoint's parts, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// A Hugging Face Hub and its cache on this machine.
///
/// ```no_run
/// use mtlora_hub::Hub;
///
/// let hub = Hub::from_env()?;
/// let folder = hub.model(&"roberta-base".parse()?, &mut ())?;
/// assert!(folder.join("config.json").exists());
/// # Ok::<(), mtlora_hub::HubError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Hub {
    config: HubConfig,
}

impl Hub {
    /// A Hub with these settings.
    pub fn new(config: HubConfig) -> Self {
        Self { config }
    }

    /// A Hub with the settings of the environment variables: see [`HubConfig::from_env`].
    ///
    /// # Errors
    /// The same as [`HubConfig::from_env`].
    pub fn from_env() -> Result<Self, HubError> {
        Ok(Self::new(HubConfig::from_env()?))
    }

    pub(crate) fn config(&self) -> &HubConfig {
        &self.config
    }

    /// Opens a repository at the commit that its revision points to now. This takes one request, which lists the files;
    /// offline, or where the Hub does not answer, the copy in the cache is used instead.
    ///
    /// # Errors
    /// The repository or the revision does not exist, the user may not see it, or the Hub does not answer and the cache
    /// has no copy.
    pub fn snapshot(
        &self,
        kind: RepoKind,
        id: &RepoId,
        progress: &mut dyn Progress,
    ) -> Result<Snapshot, HubError> {
        Snapshot::open(&self.config, kind, id, progress)
    }

    /// The folder of a model. It gets the files that are needed and no others: configuration, tokenizer and weights
    /// (safetensors, in one file or in parts; `pytorch_model.bin` if there are none).
    ///
    /// # Errors
    /// The same as [`Self::snapshot`], [`Snapshot::model_description`] and [`Snapshot::model_weights`].
    pub fn model(&self, id: &RepoId, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot(RepoKind::Model, id, progress)?;
        snapshot.model_description(progress)?;
        snapshot.model_weights(progress)
    }

    /// The folder of an adapter in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`, or
    /// `adapter_model.bin` if there are no safetensors; and `labels.json`, which `mtlora export` writes, if it is there.
    ///
    /// # Errors
    /// The same as [`Self::snapshot`] and [`Snapshot::fetch`]; or the repository lacks one of these files.
    pub fn adapter(&self, id: &RepoId, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot(RepoKind::Model, id, progress)?;
        let only_pickle = snapshot.has(ADAPTER_PICKLE) && !snapshot.has(ADAPTER_WEIGHTS);
        let weights = if only_pickle {
            ADAPTER_PICKLE
        } else {
            ADAPTER_WEIGHTS
        };
        for file in [ADAPTER_CONFIG, weights] {
            snapshot.need(file, &[CONFIG, WEIGHTS], progress)?;
        }
        if snapshot.has(ADAPTER_LABELS) {
            snapshot.fetch(ADAPTER_LABELS, progress)?;
        }
        snapshot.remember()?;
        Ok(snapshot.folder())
    }

    /// The folder of a data set. It gets those files in the repository's folder `folder` that `wanted` accepts.
    ///
    /// # Errors
    /// The same as [`Self::snapshot`] and [`Snapshot::fetch`]; or `wanted` accepts none of the files in `folder`.
    pub fn dataset(
        &self,
        id: &RepoId,
        folder: &str,
        wanted: &dyn Fn(&str) -> bool,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot(RepoKind::Dataset, id, progress)?;
        let there = snapshot.files_in(folder);
        let files: Vec<&String> = there.iter().filter(|file| wanted(file)).collect();
        if files.is_empty() {
            return Err(snapshot.no_file(&format!("file of the wanted splits in {folder}"), there));
        }
        for file in files {
            snapshot.fetch(file, progress)?;
        }
        snapshot.remember()?;
        Ok(snapshot.folder())
    }
}

/// `model.safetensors.index.json`: which part of a checkpoint has which weight.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Snapshot {
    /// Downloads the small files that describe a model, its configuration and tokenizer, and gives the folder that they
    /// are in.
    ///
    /// # Errors
    /// The repository lacks `config.json` or `tokenizer.json`; otherwise the same as [`Self::fetch`].
    pub fn model_description(&self, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
        self.need(CONFIG, &[ADAPTER_CONFIG], progress)?;
        self.need(
            TOKENIZER,
            &["vocab.json", "vocab.txt", "tokenizer.model"],
            progress,
        )?;
        for file in OPTIONAL {
            if self.has(file) {
                self.fetch(file, progress)?;
            }
        }
        Ok(self.folder())
    }

    /// Downloads a model's weights and gives the folder that they are in. The weights are `model.safetensors`, or the
    /// parts that `model.safetensors.index.json` names; where a model has neither, `pytorch_model.bin` or its parts.
    ///
    /// # Errors
    /// The repository has none of them; the index of the parts cannot be read, or names files outside of the folder;
    /// otherwise the same as [`Self::fetch`].
    pub fn model_weights(&self, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
        if self.has(WEIGHTS) {
            self.fetch(WEIGHTS, progress)?;
        } else if self.has(INDEX) {
            for part in self.parts(INDEX, ".safetensors", progress)? {
                self.fetch(&part, progress)?;
            }
        } else if self.has(PICKLE) {
            self.fetch(PICKLE, progress)?;
        } else if self.has(PICKLE_INDEX) {
            for part in self.parts(PICKLE_INDEX, ".bin", progress)? {
                self.fetch(&part, progress)?;
            }
        } else {
            let others = ["tf_model.h5", "flax_model.msgpack", "model.onnx"];
            return Err(self.lacks(WEIGHTS, &others));
        }
        self.remember()?;
        Ok(self.folder())
    }

    /// The files that an index of a checkpoint names, all of which must end in `ending`.
    fn parts(
        &self,
        index_file: &'static str,
        ending: &'static str,
        progress: &mut dyn Progress,
    ) -> Result<BTreeSet<String>, HubError> {
        let path = self.fetch(index_file, progress)?;
        let wrong = |message: String| HubError::Index {
            path: path.clone(),
            message,
        };
        let index: Index =
            serde_json::from_slice(&read_small(&path, MAX_INDEX)?).map_err(|error| {
                wrong(format!(
                    "cannot be read as an index of a checkpoint: {error}"
                ))
            })?;
        let parts: BTreeSet<String> = index.weight_map.into_values().collect();
        for part in &parts {
            check_path(part).map_err(|reason| HubError::UnsafeName {
                what: format!("{index_file} of {}", self.what()),
                name: part.clone(),
                reason,
            })?;
            // An index of safetensors must not make this download a pickle.
            if !part.ends_with(ending) {
                return Err(wrong(format!(
                    "names the file {}, which does not end in {ending}",
                    crate::error::shown(part)
                )));
            }
        }
        if parts.is_empty() {
            return Err(wrong("names no file".to_string()));
        }
        Ok(parts)
    }

    /// Downloads a required file. If the repository lacks it, the error names those of `instead` that it has.
    fn need(
        &self,
        file: &str,
        instead: &[&str],
        progress: &mut dyn Progress,
    ) -> Result<(), HubError> {
        if !self.has(file) {
            return Err(self.lacks(file, instead));
        }
        self.fetch(file, progress)?;
        Ok(())
    }

    fn lacks(&self, file: &str, instead: &[&str]) -> HubError {
        let there = instead.iter().filter(|name| self.has(name));
        self.no_file(file, there.map(ToString::to_string).collect())
    }
}
