//! What can go wrong between a name and its folder, in both directions.

use std::io;
use std::path::{Path, PathBuf};

/// How many characters of a name, or of what a server says, a message shows.
const SHOWN: usize = 200;
/// How many names a message lists before it says "and N more".
const LISTED: usize = 8;

/// Why a name of the Hub could not be resolved to a folder, or why a folder could not be sent there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Text that cannot be the name of a model, an adapter or a data set.
    #[error("{} is not a valid name on the Hub: {reason}; names look like `roberta-base`, `org/name` or `org/name@revision`", shown(.text))]
    Name {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file name, revision or hash that would lead out of the cache, or that some system does not allow.
    #[error("{what}: refused the name {}, which {reason}; nothing was written", shown(.name))]
    UnsafeName {
        /// Where the name comes from, such as "the list of files of model org/name".
        what: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A folder of the cache that is a link to somewhere outside of it.
    #[error("{}: this link leads out of the cache {}, and nothing is written outside of the cache; remove the link, or set HF_HUB_CACHE to another folder", .path.display(), .cache.display())]
    OutsideCache {
        /// The folder.
        path: PathBuf,
        /// The cache.
        cache: PathBuf,
    },
    /// An environment variable, or the file that it names, has a value that cannot be used.
    #[error("{variable}: {message}")]
    Environment {
        /// The variable, or the file.
        variable: String,
        /// What is wrong. It never shows a token.
        message: String,
    },
    /// Something is not in the cache, and nothing may be downloaded.
    #[error("{what}: {missing} is not in the cache {}, and HF_HUB_OFFLINE is set; unset it to download from {endpoint}", .cache.display())]
    Offline {
        /// The model, adapter or data set.
        what: String,
        /// The file, or the revision.
        missing: String,
        /// The cache.
        cache: PathBuf,
        /// Where it would be downloaded from.
        endpoint: String,
    },
    /// The server did not answer, broke off, or reported trouble at every attempt.
    #[error(
        "{what}: cannot reach {url} (attempts: {attempts}): {reason}; try again later (the transfer continues where it stopped), or check HF_ENDPOINT and the network"
    )]
    Unreachable {
        /// The model, adapter or data set.
        what: String,
        /// The address, without its query.
        url: String,
        /// The number of attempts.
        attempts: usize,
        /// Why the last attempt failed.
        reason: String,
    },
    /// The Hub does not have it, or does not show it to this user.
    #[error("{what}: {endpoint} has no such {kind}, or you may not see it{}; check the name", token_hint(*.with_token))]
    NotFound {
        /// The model, adapter or data set.
        what: String,
        /// "model" or "data set".
        kind: &'static str,
        /// The Hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository exists, but not at that revision.
    #[error("{what}: {endpoint} has no such revision; name one of its branches, tags or commits")]
    NoRevision {
        /// The model, adapter or data set, with the revision.
        what: String,
        /// The Hub.
        endpoint: String,
    },
    /// The Hub refused access: its conditions have not been accepted, or the token may not read it.
    #[error("{what}: access refused by {endpoint}{}: {}", said(.message), denied_hint(*.gated, *.with_token))]
    Denied {
        /// The model, adapter or data set.
        what: String,
        /// The Hub.
        endpoint: String,
        /// Whether the user must accept conditions first.
        gated: bool,
        /// Whether a token was sent.
        with_token: bool,
        /// The server's message, which may be empty.
        message: String,
    },
    /// Nothing can be sent without a token.
    #[error(
        "{what}: no token to write with; make one that may write at {endpoint}/settings/tokens, and set HF_TOKEN to it"
    )]
    NoToken {
        /// The repository.
        what: String,
        /// The Hub.
        endpoint: String,
    },
    /// The Hub does not let this user write.
    #[error("{what}: {endpoint} does not let you write{}: {}", said(.message), write_hint(*.status))]
    WriteDenied {
        /// The repository.
        what: String,
        /// The Hub.
        endpoint: String,
        /// The HTTP status: 401 for a token that is not valid, 403 for one that may not write there.
        status: u16,
        /// The server's message, which may be empty.
        message: String,
    },
    /// A repository of that name exists, and has other contents than those that were to be sent.
    #[error("{what}: it exists already on {endpoint}{}; {}", with_files(.there), exists_hint(.there))]
    Exists {
        /// The repository.
        what: String,
        /// The Hub.
        endpoint: String,
        /// The files that are not sent, or are sent with other contents; none if the repository cannot be read.
        there: Vec<String>,
    },
    /// A repository that should be private exists, and everybody sees it. Nothing was sent.
    #[error(
        "{what}: it exists already, and is public; make it private in its settings at {page}/settings, or leave out --private"
    )]
    Public {
        /// The repository.
        what: String,
        /// Its page.
        page: String,
    },
    /// A repository was changed by somebody else while files were sent to it.
    #[error("{what}: it was changed while the files were sent{}; nothing of it was replaced, so run the command again", said(.message))]
    ChangedThere {
        /// The repository.
        what: String,
        /// The server's message, which may be empty.
        message: String,
    },
    /// A file was changed after it was listed. No commit was made.
    #[error("{}: the file changed after it was listed, so it was not published; run the command again", .path.display())]
    ChangedHere {
        /// The file.
        path: PathBuf,
    },
    /// [`Progress::is_stopped`](crate::Progress::is_stopped) asked to stop. No commit was made.
    #[error("stopped before everything was sent")]
    Stopped,
    /// A status that has no meaning of its own on the Hub.
    #[error("{what}: {url} answered with status {status}{}", said(.message))]
    Status {
        /// The model, adapter or data set.
        what: String,
        /// The address, without its query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's message, which may be empty.
        message: String,
    },
    /// An answer that does not follow the Hub's protocol.
    #[error("{what}: {url}: {message}; is HF_ENDPOINT the address of a Hub?")]
    Protocol {
        /// The model, adapter or data set.
        what: String,
        /// The address, without its query.
        url: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// The repository lacks a file that is needed.
    #[error("{what}: it has no {missing}{}; {hint}", found(.there))]
    NoFile {
        /// The model, adapter or data set.
        what: String,
        /// The file.
        missing: String,
        /// Files that it has instead.
        there: Vec<String>,
        /// What to do.
        hint: &'static str,
    },
    /// The contents are not the ones that the Hub announced. They were deleted.
    #[error("{what}: {file} did not arrive whole: {message}; it was deleted, try again")]
    Damaged {
        /// The model, adapter or data set.
        what: String,
        /// The file.
        file: String,
        /// The announced and the found sizes or hashes.
        message: String,
    },
    /// The list of a model's weight files cannot be used.
    #[error("{}: {message}", .path.display())]
    Index {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The operating system refused to read or write in the cache.
    #[error("{}: {action} failed: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, such as "writing".
        action: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}

impl HubError {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            action,
            source,
        }
    }

    /// Whether the copy in the cache may be used instead, since the server did not answer or is in trouble.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

fn token_hint(with_token: bool) -> &'static str {
    if with_token {
        " with the token that was sent"
    } else {
        " (no token was sent: set HF_TOKEN if it is private or gated)"
    }
}

fn denied_hint(gated: bool, with_token: bool) -> &'static str {
    match (gated, with_token) {
        (true, true) => {
            "it is gated; accept its conditions on its page with the account that the token belongs to"
        }
        (true, false) => {
            "it is gated; accept its conditions on its page, and set HF_TOKEN to a token of that account"
        }
        (false, true) => {
            "the token that was sent is not valid or may not read it; set HF_TOKEN to one that may"
        }
        (false, false) => "set HF_TOKEN to a token that may read it",
    }
}

fn write_hint(status: u16) -> &'static str {
    match status {
        401 => "the token is not valid; set HF_TOKEN to one that may write",
        _ => {
            "check the owner's name, and that the token may write there; the Hub's page of your tokens shows what each may do"
        }
    }
}

fn with_files(there: &[String]) -> String {
    if there.is_empty() {
        return String::new();
    }
    format!(", with other contents: {}", listed(there))
}

fn exists_hint(there: &[String]) -> &'static str {
    if there.is_empty() {
        "you may not see it, so choose another name"
    } else {
        "choose another name, or allow it to be overwritten (--overwrite), which adds a commit"
    }
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({})", shown(message))
    }
}

fn found(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(", but {}", listed(names))
}

/// The first names, and how many more there are.
fn listed(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(LISTED).map(|name| shown(name)).collect();
    let left = names.len() - first.len();
    let more = if left > 0 {
        format!(" and {left} more")
    } else {
        String::new()
    };
    format!("{}{more}", first.join(", "))
}

/// Text from elsewhere as a message shows it: in backticks, on one line, and cut to [`SHOWN`] characters.
pub(crate) fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let head: String = characters
        .by_ref()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    let rest = if characters.next().is_some() {
        "…"
    } else {
        ""
    };
    format!("`{head}{rest}`")
}
