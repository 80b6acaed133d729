//! What can go wrong between a name and its folder.

use std::io;
use std::path::{Path, PathBuf};

/// How many characters of a name, or of what a server says, a message shows.
const SHOWN: usize = 200;
/// How many names a message lists before it says "and N more".
const LISTED: usize = 8;

/// Why a name of the Hub could not be resolved to a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Text that is no name of a model, an adapter or a data set.
    #[error("{} is no name on the Hub: {reason}; names look like `roberta-base`, `org/name` or `org/name@revision`", shown(.text))]
    Name {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file name, revision or hash that would lead out of the cache, or is no file name on some system.
    #[error("{what}: refused {}, which {reason}; nothing was written", shown(.name))]
    UnsafeName {
        /// What named it, such as "the list of files of model org/name".
        what: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A folder of the cache that leads out of it.
    #[error("{}: leads out of the cache {}, where nothing is written; remove the link, or name another cache with HF_HUB_CACHE", .path.display(), .cache.display())]
    OutsideCache {
        /// The folder.
        path: PathBuf,
        /// The cache.
        cache: PathBuf,
    },
    /// An environment variable or a file that it names with a value that cannot be.
    #[error("{variable}: {message}")]
    Environment {
        /// The variable, or the file.
        variable: String,
        /// What is wrong; never shows a token.
        message: String,
    },
    /// Something is not in the cache, and nothing may be fetched.
    #[error("{what}: {missing} is not in the cache {}, and HF_HUB_OFFLINE is set; unset it to fetch from {endpoint}", .cache.display())]
    Offline {
        /// The model, adapter or data set.
        what: String,
        /// The file, or the revision.
        missing: String,
        /// The cache.
        cache: PathBuf,
        /// Where it would be fetched from.
        endpoint: String,
    },
    /// Nobody answered, or the answer broke off, or the server was in trouble, however often it was tried.
    #[error(
        "{what}: cannot fetch {url} (tries: {attempts}): {reason}; try again later (what has arrived is kept), or see whether HF_ENDPOINT and the network are right"
    )]
    Unreachable {
        /// The model, adapter or data set.
        what: String,
        /// The address, without its query.
        url: String,
        /// How often it was tried.
        attempts: usize,
        /// What happened the last time.
        reason: String,
    },
    /// The Hub does not know it, or does not show it to this user.
    #[error("{what}: {endpoint} has no such {kind}, or only for those who may see it{}; check the name", token_hint(*.with_token))]
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
    /// It exists, but not at that revision.
    #[error("{what}: {endpoint} has no such revision; name a branch, a tag or a commit of it")]
    NoRevision {
        /// The model, adapter or data set, with the revision.
        what: String,
        /// The Hub.
        endpoint: String,
    },
    /// The Hub refused: it asks for conditions to be accepted, or the token may not read it.
    #[error("{what}: access refused by {endpoint}{}: {}", said(.message), denied_hint(*.gated, *.with_token))]
    Denied {
        /// The model, adapter or data set.
        what: String,
        /// The Hub.
        endpoint: String,
        /// Whether there are conditions to accept first.
        gated: bool,
        /// Whether a token was sent.
        with_token: bool,
        /// What the server says.
        message: String,
    },
    /// An answer that says neither yes nor no.
    #[error("{what}: {url} answered with status {status}{}", said(.message))]
    Status {
        /// The model, adapter or data set.
        what: String,
        /// The address, without its query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says.
        message: String,
    },
    /// An answer that is not what the Hub's protocol has there.
    #[error("{what}: {url}: {message}; is HF_ENDPOINT the address of a Hub?")]
    Protocol {
        /// The model, adapter or data set.
        what: String,
        /// The address, without its query.
        url: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// A repository without a file that is needed.
    #[error("{what}: it has no {missing}{}; {hint}", found(.there))]
    NoFile {
        /// The model, adapter or data set.
        what: String,
        /// The file.
        missing: String,
        /// What there is in its place.
        there: Vec<String>,
        /// What to do.
        hint: &'static str,
    },
    /// What arrived is not what was announced. Nothing of it was kept.
    #[error("{what}: {file} did not arrive whole: {message}; nothing of it was kept, try again")]
    Damaged {
        /// The model, adapter or data set.
        what: String,
        /// The file.
        file: String,
        /// Announced and found sizes or hashes.
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
        /// The operating system's reason.
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

    /// Whether the copy in the cache may be used instead: nobody answered, or the server was in trouble.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

fn token_hint(with_token: bool) -> &'static str {
    match with_token {
        true => " (the token that was sent may not)",
        false => " (no token was sent: set HF_TOKEN if it is private or gated)",
    }
}

fn denied_hint(gated: bool, with_token: bool) -> &'static str {
    match (gated, with_token) {
        (true, true) => {
            "it is gated; accept its conditions on its page with the account that the token is of"
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

fn said(message: &str) -> String {
    match message.is_empty() {
        true => String::new(),
        false => format!(" ({})", shown(message)),
    }
}

fn found(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let first: Vec<String> = names.iter().take(LISTED).map(|name| shown(name)).collect();
    let more = match names.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(", but {}{more}", first.join(", "))
}

/// Somebody else's text, in backticks, on one line and cut to a length that a message bears.
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
