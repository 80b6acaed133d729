//! Downloads one file's contents into the cache, either whole or not at all.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ureq::http::StatusCode;
use ureq::http::header::CONTENT_RANGE;

use crate::cache::{self, RepoCache, finish, open_partial};
use crate::client::{Client, Failure, FileHead};
use crate::error::HubError;
use crate::hash::ContentHash;
use crate::progress::Progress;

/// How much is read at a time, in bytes.
const CHUNK: usize = 1 << 17;
/// The most bytes that a file may have whose size the Hub does not announce.
const MAX_UNANNOUNCED: u64 = 1 << 30;
/// An attempt that adds this many bytes counts as a success: the number of failed attempts starts from zero again.
const ENOUGH: u64 = 1 << 20;
/// How often one file's download may break off in all.
const MAX_BREAKS: usize = 1000;

/// Downloads `file` at `commit`, unless the cache has its contents, and gives the path of the link to them.
///
/// When a download breaks off, what has arrived stays in `<hash>.incomplete`, and the next attempt resumes there, in
/// this process or another. Contents get their final name only if their size and hash are the announced ones; others
/// are deleted.
pub(crate) fn fetch(
    client: &Client<'_>,
    repo: &RepoCache,
    commit: &str,
    file: &str,
    progress: &mut dyn Progress,
) -> Result<PathBuf, HubError> {
    let url = client.file_url(commit, file);
    let head = client.head(&url)?;
    let Some(hash) = head.etag.as_deref().and_then(ContentHash::parse) else {
        let message = match head.etag {
            Some(etag) => format!(
                "its ETag {} is neither a git hash nor a SHA-256",
                crate::error::shown(&etag)
            ),
            None => "the answer has no ETag".to_string(),
        };
        return Err(client.protocol(&url, message));
    };
    if repo.blob(&hash).is_none() {
        let lock = repo.lock(&hash, || {
            progress.note(&format!(
                "waiting for another process that is fetching {file}"
            ));
        })?;
        // Another process may have fetched it while this one waited.
        if repo.blob(&hash).is_none() {
            let blob = repo.blob_to_write(&hash)?;
            let name = if lock.is_exclusive() {
                hash.name().to_string()
            } else {
                cache::beside(hash.name())
            };
            let partial = blob.with_file_name(format!("{name}.incomplete"));
            let wanted = Wanted {
                client,
                url: &url,
                file,
                head: &head,
                hash: &hash,
            };
            wanted.fetch_into(&partial, &blob, progress)?;
        }
    }
    repo.link(commit, file, &hash)
}

/// The contents to download.
struct Wanted<'a> {
    client: &'a Client<'a>,
    url: &'a str,
    file: &'a str,
    head: &'a FileHead,
    hash: &'a ContentHash,
}

impl Wanted<'_> {
    /// Downloads the contents into `partial`, and renames them to `blob` if they are right.
    fn fetch_into(
        &self,
        partial: &Path,
        blob: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), HubError> {
        let resumed = self.gather(partial, progress)?;
        let mut checked = self.check(partial);
        if checked.is_err() && resumed {
            // The part from an earlier download may have been wrong.
            remove(partial)?;
            self.gather(partial, progress)?;
            checked = self.check(partial);
        }
        if let Err(error) = checked {
            remove(partial)?;
            return Err(error);
        }
        let (file, _) = open_partial(partial)?;
        finish(file, partial, blob)?;
        progress.finished();
        Ok(())
    }

    /// Adds to `partial` until all has arrived. True if it had a part from an earlier download.
    fn gather(&self, partial: &Path, progress: &mut dyn Progress) -> Result<bool, HubError> {
        let mut waits = self.client.waits();
        let mut resumed = false;
        for tries in 0..MAX_BREAKS {
            let (mut out, mut have) = open_partial(partial)?;
            if have > self.most() {
                drop(out);
                remove(partial)?;
                (out, have) = open_partial(partial)?;
            }
            resumed |= tries == 0 && have > 0;
            progress.started(self.file, have, self.head.size);
            if have > 0 && Some(have) == self.head.size {
                return Ok(resumed);
            }
            let before = have;
            match self.add(&mut out, partial, &mut have, progress) {
                Ok(()) => return Ok(resumed),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { reason, wait }) => {
                    if have >= before.saturating_add(ENOUGH) {
                        waits = self.client.waits();
                    }
                    if !waits.next(&reason, wait) {
                        return Err(self.client.unreachable(self.url, waits.failed, reason));
                    }
                }
            }
        }
        let reason = "the connection broke off too often".to_string();
        Err(self.client.unreachable(self.url, MAX_BREAKS, reason))
    }

    /// One attempt to download the contents from byte `have` on.
    fn add(
        &self,
        out: &mut fs::File,
        partial: &Path,
        have: &mut u64,
        progress: &mut dyn Progress,
    ) -> Result<(), Failure> {
        let failed = |error| Failure::Final(HubError::io(partial, "writing", error));
        let response = self.client.body(self.url, *have)?;
        if *have > 0 && !continues(&response, *have) {
            // The server does not send parts of this file, so it starts from the beginning.
            out.set_len(0).map_err(failed)?;
            let whole = response.status() == StatusCode::OK;
            *have = 0;
            progress.started(self.file, 0, self.head.size);
            if !whole {
                let status = response.status();
                return Err(Failure::passing(format!(
                    "status {status} for a part of the file"
                )));
            }
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::passing(error)),
            };
            *have += length as u64;
            if *have > self.most() {
                // If this were kept, the next attempt would take it for the beginning of the right contents.
                out.set_len(0).map_err(failed)?;
                let message = match self.head.size {
                    Some(size) => format!("more bytes came than the {size} announced"),
                    None => {
                        format!("more than {MAX_UNANNOUNCED} bytes came, and no size was announced")
                    }
                };
                return Err(Failure::Final(self.damaged(message)));
            }
            out.write_all(buffer.get(..length).unwrap_or_default())
                .map_err(failed)?;
            progress.advanced(*have);
        }
        match self.head.size {
            Some(size) if *have < size => Err(Failure::passing(format!(
                "the connection ended after {have} of {size} bytes"
            ))),
            _ => Ok(()),
        }
    }

    /// The most bytes that the contents can have.
    fn most(&self) -> u64 {
        self.head.size.unwrap_or(MAX_UNANNOUNCED)
    }

    fn check(&self, partial: &Path) -> Result<(), HubError> {
        let found = self
            .hash
            .of_file(partial)
            .map_err(|error| HubError::io(partial, "reading", error))?;
        if found != *self.hash {
            return Err(self.damaged(format!(
                "its hash is {}, but {} was announced",
                found.name(),
                self.hash.name()
            )));
        }
        Ok(())
    }

    fn damaged(&self, message: String) -> HubError {
        HubError::Damaged {
            what: self.client.what(),
            file: self.file.to_string(),
            message,
        }
    }
}

/// Whether the response is the rest of the file from byte `from` on.
fn continues(response: &ureq::http::Response<ureq::Body>, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE);
    let range = range
        .and_then(|range| range.to_str().ok())
        .unwrap_or_default();
    response.status() == StatusCode::PARTIAL_CONTENT && range.starts_with(&format!("bytes {from}-"))
}

fn remove(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(HubError::io(path, "deleting", error))
        }
        _ => Ok(()),
    }
}
