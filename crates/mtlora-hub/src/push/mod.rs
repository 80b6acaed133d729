//! Sends files to a repository of the Hub: creates it, sends what it does not have, and makes one commit
//! (huggingface/huggingface_hub, `_commit_api.py`).

mod files;
mod lfs;
mod request;

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, Failure, escaped};
use crate::error::HubError;
use crate::hub::Hub;
use crate::name::{RepoId, RepoKind, is_commit};
use crate::progress::Progress;
use crate::push::request::{JSON, NDJSON};
use crate::snapshot::{self, Listing};

pub use files::{Upload, UploadFile};

/// Files of more bytes are stored as large ones, whatever the Hub says: a commit cannot carry them.
const MAX_REGULAR: u64 = 10 << 20;
/// How many files the Hub is asked about at a time.
const ASKED: usize = 256;
/// The file that the Hub puts into a new repository.
const ATTRIBUTES: &str = ".gitattributes";

/// How files are sent to a repository.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Whether a new repository is private. One that exists must be private then.
    pub private: bool,
    /// Whether a commit may be added to a repository that has other files, or these with other contents.
    pub overwrite: bool,
    /// The commit's message.
    pub message: String,
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The repository's page.
    pub url: String,
    /// The new commit, 40 hexadecimal digits; `None` if the repository had all files already.
    pub commit: Option<String>,
    /// The files whose contents were sent.
    pub sent: Vec<String>,
    /// The files whose contents the Hub had.
    pub kept: Vec<String>,
}

/// What the Hub knows of a file before it is sent.
struct Known {
    /// Whether it belongs into the storage for large files.
    is_large: bool,
    /// Whether the repository's `.gitignore` excludes it.
    is_ignored: bool,
    /// The hash of the contents that the repository has under this name.
    oid: Option<String>,
}

#[derive(Deserialize)]
struct Preupload {
    files: Vec<PreuploadFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreuploadFile {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
    oid: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_oid: String,
}

impl Hub {
    /// The page of a model or an adapter.
    pub fn page(&self, id: &RepoId) -> String {
        format!("{}/{}", self.config().endpoint, id.name())
    }

    /// Whether files could be sent to a model's repository of this name, as far as that can be known without asking the Hub.
    ///
    /// # Errors
    /// The name has no owner, or names a revision; there is no token; or nothing may be sent since HF_HUB_OFFLINE is set.
    pub fn check_push(&self, id: &RepoId) -> Result<(), HubError> {
        let config = self.config();
        let wrong = |reason| HubError::Name {
            text: id.to_string(),
            reason,
        };
        if !id.name().contains('/') {
            return Err(wrong("to write there, its owner must be named too"));
        }
        if !id.is_main() {
            return Err(wrong("files are sent to `main`, so leave the revision out"));
        }
        if config.offline {
            return Err(HubError::Environment {
                variable: "HF_HUB_OFFLINE".to_string(),
                message: "is set, and nothing is sent then; unset it".to_string(),
            });
        }
        if config.token.is_none() {
            return Err(HubError::NoToken {
                what: crate::client::what(RepoKind::Model, id),
                endpoint: config.endpoint.clone(),
            });
        }
        Ok(())
    }

    /// Sends these files to the `main` branch of a model's repository, in one commit, and creates the repository if it does
    /// not exist. What the Hub has already is not sent again, so that a push that broke off is continued by another one. A
    /// file of several parts is continued at the part that broke off, unless the process ended.
    ///
    /// # Errors
    /// Those of [`Self::check_push`]; the user may not write there; the repository exists with other contents and
    /// [`PushOptions::overwrite`] is not set, or is public although [`PushOptions::private`] is set; the connection breaks
    /// off again and again; somebody else changes the repository at the same time; or a file changes after it was listed.
    /// No commit is made then.
    pub fn push(
        &self,
        id: &RepoId,
        upload: &Upload,
        options: &PushOptions,
        progress: &mut dyn Progress,
    ) -> Result<Pushed, HubError> {
        self.check_push(id)?;
        let client = Client::to_write(self.config(), RepoKind::Model, id);
        let before = match find(&client)? {
            Some(found) => Some(found),
            None if create(&client, options.private)? => None,
            // It exists although it was not found: either it was made meanwhile, perhaps by an attempt whose answer was
            // lost, or this user may not see it.
            None => match find(&client)? {
                None => return Err(exists(&client, Vec::new())),
                found => found,
            },
        };
        if options.private
            && before
                .as_ref()
                .is_some_and(|found| found.private != Some(true))
        {
            return Err(HubError::Public {
                what: client.what(),
                page: self.page(id),
            });
        }
        let known = preupload(&client, upload)?;
        if let Some(found) = &before {
            check_contents(&client, found, upload, &known, options.overwrite)?;
        }
        let mut pushed = Pushed {
            url: self.page(id),
            commit: None,
            sent: Vec::new(),
            kept: Vec::new(),
        };
        let mut lines = Vec::new();
        for (file, known) in upload.files().iter().zip(&known) {
            if progress.is_stopped() {
                return Err(HubError::Stopped);
            }
            let name = file.name().to_string();
            if known.is_ignored {
                progress.note(&format!(
                    "{name} is not sent: the repository's .gitignore excludes it"
                ));
            } else if known.has(file) {
                pushed.kept.push(name);
            } else if known.is_large {
                if lfs::store(&client, file, progress)? {
                    pushed.sent.push(name);
                } else {
                    pushed.kept.push(name);
                }
                lines.push(json!({ "key": "lfsFile", "value": {
                    "path": file.name(),
                    "algo": "sha256",
                    "oid": file.sha256(),
                    "size": file.size(),
                }}));
            } else {
                lines.push(json!({ "key": "file", "value": {
                    "content": BASE64.encode(file.contents()?),
                    "path": file.name(),
                    "encoding": "base64",
                }}));
                pushed.sent.push(name);
            }
        }
        if progress.is_stopped() {
            return Err(HubError::Stopped);
        }
        if !lines.is_empty() {
            let parent = before.as_ref().map(|found| found.sha.as_str());
            let body = commit_body(&options.message, parent, &lines);
            pushed.commit = Some(commit(&client, &body, upload)?);
        }
        Ok(pushed)
    }
}

impl Known {
    /// Whether the repository has this file with these contents.
    fn has(&self, file: &UploadFile) -> bool {
        self.oid.as_deref().is_some_and(|oid| file.is_known_as(oid))
    }
}

/// The repository's commit and files, if it exists and this user may see it.
fn find(client: &Client<'_>) -> Result<Option<Listing>, HubError> {
    match client.listing() {
        Ok(bytes) => snapshot::parse(client, &bytes).map(Some),
        Err(HubError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates the repository. False if it exists.
fn create(client: &Client<'_>, private: bool) -> Result<bool, HubError> {
    let url = format!("{}/api/repos/create", client.config.endpoint);
    let (owner, name) = client.id.name().split_once('/').unwrap_or_default();
    let body = json!({
        "type": "model",
        "name": name,
        "organization": owner,
        "private": private,
    });
    let body = body.to_string().into_bytes();
    client.retried(&url, || {
        let (at, response) = client.post(&url, JSON, &body)?;
        if response.status() != 409 {
            return client.granted(&at, response).map(|_| true);
        }
        // The Hub makes one repository of a user at a time, and answers with the same status while it is busy.
        match client.failed(&at, response) {
            Failure::Final(error) if error.to_string().contains("in progress") => {
                Err(Failure::passing(error))
            }
            _ => Ok(false),
        }
    })
}

/// Asks how each file is to be sent, and what the repository has in its place.
fn preupload(client: &Client<'_>, upload: &Upload) -> Result<Vec<Known>, HubError> {
    let url = format!("{}/preupload/{}", api(client), main(client));
    let mut all = Vec::new();
    for files in upload.files().chunks(ASKED) {
        let asked: Vec<Value> = files
            .iter()
            .map(|file| {
                json!({
                    "path": file.name(),
                    "sample": BASE64.encode(&file.sample),
                    "size": file.size(),
                })
            })
            .collect();
        let answer: Preupload = client.ask(&url, JSON, &json!({ "files": asked }))?;
        for file in files {
            let mut found = answer.files.iter();
            let Some(found) = found.find(|one| one.path == file.name()) else {
                return Err(client.protocol(&url, format!("says nothing about {}", file.name())));
            };
            let is_large = match found.upload_mode.as_str() {
                // The storage takes no empty files.
                _ if file.size() == 0 => false,
                "lfs" => true,
                "regular" => file.size() > MAX_REGULAR,
                other => {
                    let message = format!("wants {} to be sent as `{other}`", file.name());
                    return Err(client.protocol(&url, message));
                }
            };
            all.push(Known {
                is_large,
                is_ignored: found.should_ignore,
                oid: found.oid.clone(),
            });
        }
    }
    Ok(all)
}

/// Refuses a repository with other files than those that are sent, or with other contents of these.
fn check_contents(
    client: &Client<'_>,
    found: &Listing,
    upload: &Upload,
    known: &[Known],
    may_overwrite: bool,
) -> Result<(), HubError> {
    if may_overwrite {
        return Ok(());
    }
    let mut others: BTreeSet<String> = found
        .siblings
        .iter()
        .map(|sibling| sibling.rfilename.clone())
        .filter(|name| name != ATTRIBUTES)
        .collect();
    for (file, known) in upload.files().iter().zip(known) {
        if known.has(file) {
            others.remove(file.name());
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    Err(exists(client, others.into_iter().collect()))
}

fn exists(client: &Client<'_>, there: Vec<String>) -> HubError {
    HubError::Exists {
        what: client.what(),
        endpoint: client.config.endpoint.clone(),
        there,
    }
}

/// The body of a commit: a line of JSON for its message, and one for each file.
fn commit_body(message: &str, parent: Option<&str>, lines: &[Value]) -> Vec<u8> {
    let mut header = json!({ "summary": message, "description": "" });
    if let Some(parent) = parent {
        header["parentCommit"] = parent.into();
    }
    let header = json!({ "key": "header", "value": header });
    let mut body = Vec::new();
    for line in [&header].into_iter().chain(lines) {
        body.extend(line.to_string().into_bytes());
        body.push(b'\n');
    }
    body
}

/// Makes the commit, and gives its hash.
fn commit(client: &Client<'_>, body: &[u8], upload: &Upload) -> Result<String, HubError> {
    let url = format!("{}/commit/{}", api(client), main(client));
    let mut waits = client.waits();
    loop {
        let attempt = client.post(&url, NDJSON, body).and_then(|(at, response)| {
            if matches!(response.status().as_u16(), 409 | 412) {
                return Err(changed_there(client, client.failed(&at, response)));
            }
            let response = client.granted(&at, response)?;
            client.answer::<Committed>(&at, response)
        });
        match attempt {
            Ok(made) if is_commit(&made.commit_oid) => return Ok(made.commit_oid),
            Ok(made) => {
                let shown = crate::error::shown(&made.commit_oid);
                return Err(client.protocol(&url, format!("{shown} is not a commit's hash")));
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing { reason, wait }) => {
                if !waits.next(&reason, wait) {
                    return Err(client.unreachable(&url, waits.failed, reason));
                }
                // Perhaps the commit was made, and only the answer was lost. Another one would be refused or empty.
                let known = preupload(client, upload)?;
                let mut all = upload.files().iter().zip(&known);
                if all.all(|(file, known)| known.is_ignored || known.has(file))
                    && let Some(found) = find(client)?
                {
                    return Ok(found.sha);
                }
            }
        }
    }
}

fn changed_there(client: &Client<'_>, failure: Failure) -> Failure {
    let message = match failure {
        Failure::Final(HubError::Status { message, .. }) => message,
        other => return other,
    };
    Failure::Final(HubError::ChangedThere {
        what: client.what(),
        message,
    })
}

fn api(client: &Client<'_>) -> String {
    format!(
        "{}/api/{}/{}",
        client.config.endpoint,
        client.kind.plural(),
        client.id.name()
    )
}

fn main(client: &Client<'_>) -> String {
    escaped(client.id.revision(), false)
}
