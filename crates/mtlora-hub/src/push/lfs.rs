//! Sends large files to the Hub's storage: git LFS's batch requests, with the Hub's own transfer in parts
//! (git-lfs/git-lfs, `docs/api/batch.md`; huggingface/huggingface_hub, `lfs.py`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::Uri;
use ureq::http::header::ETAG;

use crate::client::{Client, Failure, text, without_query};
use crate::error::HubError;
use crate::name::RepoKind;
use crate::progress::Progress;
use crate::push::files::UploadFile;
use crate::push::request::{JSON, LFS_JSON};

/// How many times a file is tried before the storage's refusal is reported. Its addresses are signed for a while only, so that a
/// file which was held up may need new ones.
const ROUNDS: usize = 3;
/// The most parts that a file can be sent in, as on S3.
const MAX_PARTS: u64 = 10_000;

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<ObjectError>,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    header: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct ObjectError {
    code: u16,
    #[serde(default)]
    message: String,
}

/// Sends a file to the storage unless it has these contents. True if they were sent.
pub(crate) fn store(
    client: &Client<'_>,
    file: &UploadFile,
    progress: &mut dyn Progress,
) -> Result<bool, HubError> {
    let mut round = 0;
    loop {
        round += 1;
        let Some((upload, verify)) = actions(client, file)? else {
            return Ok(false);
        };
        progress.started(file.name(), 0, Some(file.size()));
        match transfer(client, file, &upload, progress) {
            Err(HubError::Status { status, .. }) if status < 500 && round < ROUNDS => continue,
            result => result?,
        }
        if let Some(verify) = verify {
            let contents = json!({ "oid": file.sha256(), "size": file.size() });
            client.address(&verify.href)?;
            client.tell(&verify.href, JSON, &contents)?;
        }
        file.check_unchanged()?;
        progress.finished();
        return Ok(true);
    }
}

/// How to send a file and how to say that it was sent; `None` if the storage has it.
fn actions(
    client: &Client<'_>,
    file: &UploadFile,
) -> Result<Option<(Action, Option<Action>)>, HubError> {
    let prefix = match client.kind {
        RepoKind::Model => "",
        RepoKind::Dataset => "datasets/",
    };
    let url = format!(
        "{}/{prefix}{}.git/info/lfs/objects/batch",
        client.config.endpoint,
        client.id.name()
    );
    let body = json!({
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": [{ "oid": file.sha256(), "size": file.size() }],
        "hash_algo": "sha256",
        "ref": { "name": client.id.revision() },
    });
    let batch: Batch = client.ask(&url, LFS_JSON, &body)?;
    let mut objects = batch.objects.into_iter();
    let object = objects.find(|object| object.oid == file.sha256());
    let Some(object) = object else {
        return Err(client.protocol(&url, format!("says nothing about {}", file.name())));
    };
    if let Some(error) = object.error {
        return Err(HubError::Status {
            what: client.what(),
            url,
            status: error.code,
            message: format!("{}: {}", file.name(), error.message),
        });
    }
    let actions = object.actions;
    Ok(actions.and_then(|actions| Some((actions.upload?, actions.verify))))
}

/// Sends a file in one request, or in parts if the Hub asks for that.
fn transfer(
    client: &Client<'_>,
    file: &UploadFile,
    upload: &Action,
    progress: &mut dyn Progress,
) -> Result<(), HubError> {
    let header = upload.header.clone().unwrap_or_default();
    let at = client.address(&upload.href)?;
    let Some(chunk) = header.get("chunk_size") else {
        let headers: BTreeMap<&str, &str> = header
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
            .filter(|(name, _)| !is_own(name))
            .collect();
        let headers: Vec<(&str, &str)> = headers.into_iter().collect();
        put(client, &at, &headers, file, (0, file.size()), progress)?;
        return Ok(());
    };
    let wrong = |message: &str| client.protocol(&without_query(&at), message.to_string());
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let chunk = number(chunk)
        .filter(|chunk| *chunk > 0)
        .ok_or_else(|| wrong("its size of a part is not a number above zero"))?;
    let addresses: BTreeMap<u64, &str> = header
        .iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.as_str()?)))
        .collect();
    let wanted = file.size().div_ceil(chunk);
    if wanted > MAX_PARTS || !addresses.keys().copied().eq(1..=wanted) {
        return Err(wrong(
            "it does not give an address for each part of the file",
        ));
    }
    let mut parts = Vec::new();
    for (number, address) in addresses {
        let from = (number - 1) * chunk;
        let size = chunk.min(file.size() - from);
        let address = client.address(address)?;
        let etag = put(client, &address, &[], file, (from, size), progress)?
            .ok_or_else(|| wrong("its storage gives no ETag for a part"))?;
        parts.push(json!({ "partNumber": number, "etag": etag }));
    }
    let all = json!({ "oid": file.sha256(), "parts": parts });
    client.tell(&upload.href, LFS_JSON, &all)
}

/// Puts a part of a file until it is accepted, and gives the answer's ETag.
fn put(
    client: &Client<'_>,
    at: &Uri,
    headers: &[(&str, &str)],
    file: &UploadFile,
    (from, size): (u64, u64),
    progress: &mut dyn Progress,
) -> Result<Option<String>, HubError> {
    let mut waits = client.waits();
    loop {
        match client.put(at, headers, file, (from, size), progress) {
            Ok(response) => return Ok(text(response.headers(), ETAG.as_str()).map(str::to_string)),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing { reason, wait }) => {
                if !waits.next(&reason, wait) {
                    return Err(client.unreachable(&without_query(at), waits.failed, reason));
                }
                progress.started(file.name(), from, Some(file.size()));
            }
        }
    }
}

/// Headers that this side sets, or that belong to a connection.
fn is_own(name: &str) -> bool {
    let own = [
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    own.iter().any(|known| known.eq_ignore_ascii_case(name))
}
