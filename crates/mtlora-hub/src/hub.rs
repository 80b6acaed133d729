//! From a name to a folder with what is needed of it.

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
/// What models from before safetensors have. Fetched only where there are no safetensors.
const PICKLE: &str = "pytorch_model.bin";
const PICKLE_INDEX: &str = "pytorch_model.bin.index.json";
const TOKENIZER: &str = "tokenizer.json";
/// What a model's folder may have besides, all small: how it generates, and what goes with its tokenizer.
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
/// The largest list of parts, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// A Hugging Face Hub, or the copy of it in the cache.
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
    /// With these settings.
    pub fn new(config: HubConfig) -> Self {
        Self { config }
    }

    /// With those of the environment: see [`HubConfig::from_env`].
    ///
    /// # Errors
    /// As [`HubConfig::from_env`].
    pub fn from_env() -> Result<Self, HubError> {
        Ok(Self::new(HubConfig::from_env()?))
    }

    /// A repository at the commit that its revision is at now. It is asked for what it has, in one request, unless
    /// that is not allowed; if it does not answer, the cache's copy is taken.
    ///
    /// # Errors
    /// No such repository or revision, none that may be seen; no answer and no copy in the cache.
    pub fn snapshot(
        &self,
        kind: RepoKind,
        id: &RepoId,
        progress: &mut dyn Progress,
    ) -> Result<Snapshot, HubError> {
        Snapshot::open(&self.config, kind, id, progress)
    }

    /// The folder of a model, with what is needed of it and nothing else: its configuration, tokenizer and
    /// weights: safetensors, whole or in parts, and `pytorch_model.bin` where there are none.
    ///
    /// # Errors
    /// As [`Self::snapshot`], [`Snapshot::model_description`] and [`Snapshot::model_weights`].
    pub fn model(&self, id: &RepoId, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot(RepoKind::Model, id, progress)?;
        snapshot.model_description(progress)?;
        snapshot.model_weights(progress)
    }

    /// The folder of an adapter in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`, or
    /// `adapter_model.bin` where there is none.
    ///
    /// # Errors
    /// As [`Self::snapshot`] and [`Snapshot::fetch`]; a repository without these files.
    pub fn adapter(&self, id: &RepoId, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot(RepoKind::Model, id, progress)?;
        let weights = match snapshot.has(ADAPTER_WEIGHTS) || !snapshot.has(ADAPTER_PICKLE) {
            true => ADAPTER_WEIGHTS,
            false => ADAPTER_PICKLE,
        };
        for file in [ADAPTER_CONFIG, weights] {
            snapshot.need(file, &[CONFIG, WEIGHTS], progress)?;
        }
        snapshot.remember()?;
        Ok(snapshot.folder())
    }

    /// The folder of a data set, with the files that `wanted` accepts.
    ///
    /// # Errors
    /// As [`Self::snapshot`] and [`Snapshot::fetch`]; `folder` with no such file.
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

/// The list of the parts of a checkpoint.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Snapshot {
    /// Fetches what describes a model, which is small: configuration and tokenizer. The folder they are in.
    ///
    /// # Errors
    /// A repository without `config.json` or `tokenizer.json`; as [`Self::fetch`].
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

    /// Fetches a model's weights: `model.safetensors`, or the parts that `model.safetensors.index.json` names, or where
    /// there is neither `pytorch_model.bin` or its parts. The folder they are in.
    ///
    /// # Errors
    /// A repository that has none of them; a list of parts that is none, or names files outside of the folder; as
    /// [`Self::fetch`].
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

    /// The names of the parts of the weights that a list names; they must end in `ending`.
    fn parts(
        &self,
        list: &'static str,
        ending: &'static str,
        progress: &mut dyn Progress,
    ) -> Result<BTreeSet<String>, HubError> {
        let path = self.fetch(list, progress)?;
        let wrong = |message: String| HubError::Index {
            path: path.clone(),
            message,
        };
        let index: Index = serde_json::from_slice(&read_small(&path, MAX_INDEX)?)
            .map_err(|error| wrong(format!("is no list of parts: {error}")))?;
        let parts: BTreeSet<String> = index.weight_map.into_values().collect();
        for part in &parts {
            check_path(part).map_err(|reason| HubError::UnsafeName {
                what: format!("{list} of {}", self.what()),
                name: part.clone(),
                reason,
            })?;
            // No pickle is fetched because a list of safetensors calls it a part.
            if !part.ends_with(ending) {
                return Err(wrong(format!(
                    "names the part {}, which does not end in {ending}",
                    crate::error::shown(part)
                )));
            }
        }
        match parts.is_empty() {
            true => Err(wrong("names no part".to_string())),
            false => Ok(parts),
        }
    }

    /// Fetches a file without which the rest is of no use.
    fn need(
        &self,
        file: &str,
        instead: &[&str],
        progress: &mut dyn Progress,
    ) -> Result<(), HubError> {
        match self.has(file) {
            true => self.fetch(file, progress).map(|_| ()),
            false => Err(self.lacks(file, instead)),
        }
    }

    fn lacks(&self, file: &str, instead: &[&str]) -> HubError {
        let there = instead.iter().filter(|name| self.has(name));
        self.no_file(file, there.map(ToString::to_string).collect())
    }
}
