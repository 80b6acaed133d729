//! The files of a repository at one commit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cache::RepoCache;
use crate::client::{Client, what};
use crate::environment::HubConfig;
use crate::error::HubError;
use crate::name::{RepoId, RepoKind, check_path, is_commit};
use crate::progress::Progress;
use crate::transfer;

/// The files of a repository at one commit: those in the cache, and those that can be downloaded into it.
#[derive(Debug)]
pub struct Snapshot {
    config: HubConfig,
    kind: RepoKind,
    id: RepoId,
    cache: RepoCache,
    commit: String,
    /// The files that the Hub has, or why it is not asked.
    remote: Remote,
}

#[derive(Debug)]
enum Remote {
    Files(BTreeSet<String>),
    Offline,
    /// The Hub was asked and did not answer.
    Outage {
        url: String,
        attempts: usize,
        reason: String,
    },
}

/// The Hub's answer about a revision.
#[derive(Deserialize)]
pub(crate) struct Listing {
    /// The commit.
    pub(crate) sha: String,
    /// Whether only its owners see it, if that was said.
    #[serde(default)]
    pub(crate) private: Option<bool>,
    #[serde(default)]
    pub(crate) siblings: Vec<Sibling>,
}

/// A file of a repository.
#[derive(Deserialize)]
pub(crate) struct Sibling {
    pub(crate) rfilename: String,
}

impl Snapshot {
    pub(crate) fn open(
        config: &HubConfig,
        kind: RepoKind,
        id: &RepoId,
        progress: &mut dyn Progress,
    ) -> Result<Self, HubError> {
        let cache = RepoCache::new(&config.cache, kind, id);
        let cached = |remote| {
            let commit = cache.commit(id.revision())?;
            let there = cache.snapshot(&commit).is_dir();
            there.then(|| Self {
                config: config.clone(),
                kind,
                id: id.clone(),
                cache: cache.clone(),
                commit,
                remote,
            })
        };
        if config.offline {
            return cached(Remote::Offline).ok_or_else(|| HubError::Offline {
                what: what(kind, id),
                missing: "it".to_string(),
                cache: config.cache.clone(),
                endpoint: config.endpoint.clone(),
            });
        }
        let client = Client::new(config, kind, id);
        let listing = match client.listing() {
            Ok(bytes) => parse(&client, &bytes)?,
            Err(error) if error.is_outage() => {
                let remote = match &error {
                    HubError::Unreachable {
                        url,
                        attempts,
                        reason,
                        ..
                    } => Remote::Outage {
                        url: url.clone(),
                        attempts: *attempts,
                        reason: reason.clone(),
                    },
                    other => Remote::Outage {
                        url: config.endpoint.clone(),
                        attempts: 1,
                        reason: other.to_string(),
                    },
                };
                let snapshot = cached(remote).ok_or(error)?;
                progress.note(&format!(
                    "{} does not answer; using the copy of {} in the cache, which may be out of date",
                    config.endpoint,
                    what(kind, id)
                ));
                return Ok(snapshot);
            }
            Err(error) => return Err(error),
        };
        let files = listing.siblings.into_iter().map(|file| file.rfilename);
        Ok(Self {
            config: config.clone(),
            kind,
            id: id.clone(),
            cache,
            commit: listing.sha,
            remote: Remote::Files(files.collect()),
        })
    }

    /// What messages call the repository: "model org/name".
    pub fn what(&self) -> String {
        what(self.kind, &self.id)
    }

    /// The commit's hash, 40 hexadecimal digits.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The folder that holds the files which have been downloaded.
    pub fn folder(&self) -> PathBuf {
        self.cache.snapshot(&self.commit)
    }

    /// Whether the repository has that file; if the Hub was not asked, whether the cache has it.
    pub fn has(&self, file: &str) -> bool {
        match &self.remote {
            Remote::Files(files) => files.contains(file),
            _ => self.cache.file(&self.commit, file).is_some(),
        }
    }

    /// The names of the repository's files, if the Hub was asked. Otherwise there are none.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let files = match &self.remote {
            Remote::Files(files) => Some(files),
            _ => None,
        };
        files.into_iter().flatten().map(String::as_str)
    }

    /// The names of the files in a folder of the repository; if the Hub was not asked, of those in the cache.
    pub fn files_in(&self, folder: &str) -> Vec<String> {
        let prefix = format!("{folder}/");
        if let Remote::Files(files) = &self.remote {
            let inside = files.iter().filter(|file| file.starts_with(&prefix));
            return inside.cloned().collect();
        }
        let mut names: Vec<String> = Vec::new();
        if check_path(folder).is_ok() {
            let entries = std::fs::read_dir(self.folder().join(folder));
            for entry in entries.into_iter().flatten().flatten() {
                if let Some(name) = entry.file_name().to_str() {
                    names.push(format!("{prefix}{name}"));
                }
            }
        }
        names.sort();
        names
    }

    /// The path of a file, which is downloaded if it is not in the cache.
    ///
    /// # Errors
    /// The name leads out of the folder; or the file does not exist, cannot be downloaded, or arrives damaged.
    pub fn fetch(&self, file: &str, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
        check_path(file).map_err(|reason| HubError::UnsafeName {
            what: self.what(),
            name: file.to_string(),
            reason,
        })?;
        if let Some(path) = self.cache.file(&self.commit, file) {
            return Ok(path);
        }
        match &self.remote {
            Remote::Files(files) if !files.contains(file) => Err(self.no_file(file, Vec::new())),
            Remote::Files(_) => {
                let client = Client::new(&self.config, self.kind, &self.id);
                transfer::fetch(&client, &self.cache, &self.commit, file, progress)
            }
            Remote::Offline => Err(HubError::Offline {
                what: self.what(),
                missing: file.to_string(),
                cache: self.cache.root().to_path_buf(),
                endpoint: self.config.endpoint.clone(),
            }),
            Remote::Outage {
                url,
                attempts,
                reason,
            } => Err(HubError::Unreachable {
                what: self.what(),
                url: url.clone(),
                attempts: *attempts,
                reason: format!("{reason}; the cache has no {file}"),
            }),
        }
    }

    /// Remembers that the revision points to this commit, for when the Hub cannot be asked. This comes last, so that who
    /// looks the revision up finds its files.
    pub(crate) fn remember(&self) -> Result<(), HubError> {
        match self.remote {
            Remote::Files(_) => self.cache.set_commit(self.id.revision(), &self.commit),
            _ => Ok(()),
        }
    }

    /// The error that a required file is missing; `there` are files that the repository has instead.
    pub(crate) fn no_file(&self, file: &str, there: Vec<String>) -> HubError {
        match &self.remote {
            Remote::Files(_) => HubError::NoFile {
                what: self.what(),
                missing: file.to_string(),
                there,
                hint: "choose another model, or a revision of this one that has it (org/name@revision)",
            },
            _ => HubError::Offline {
                what: self.what(),
                missing: file.to_string(),
                cache: self.cache.root().to_path_buf(),
                endpoint: self.config.endpoint.clone(),
            },
        }
    }
}

pub(crate) fn parse(client: &Client<'_>, bytes: &[u8]) -> Result<Listing, HubError> {
    let wrong = |message| client.protocol("the list of its files", message);
    let listing: Listing =
        serde_json::from_slice(bytes).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if !is_commit(&listing.sha) {
        return Err(wrong(format!(
            "names the commit {}, which is not a commit's hash",
            crate::error::shown(&listing.sha)
        )));
    }
    Ok(listing)
}

/// The contents of a file that must not have more than `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, HubError> {
    let failed = |error| HubError::io(path, "reading", error);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > limit {
        return Err(HubError::Index {
            path: path.to_path_buf(),
            message: format!("has {length} bytes, but such a file must not have more than {limit}"),
        });
    }
    std::fs::read(path).map_err(failed)
}
