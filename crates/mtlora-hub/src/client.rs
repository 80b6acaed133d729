//! HTTP with the Hub: redirects, the token, and new attempts.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::Agent;
use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::{Response, StatusCode, Uri};
use ureq::tls::TlsConfig;

use crate::environment::{HubConfig, RetryWait};
use crate::error::{HubError, shown};
use crate::name::{RepoId, RepoKind};

/// How many attempts in a row may fail.
pub(crate) const TRIES: usize = 5;
const MAX_REDIRECTS: usize = 10;
/// The longest wait that a server can ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may send nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest list of a repository's files, in bytes.
const MAX_LISTING: u64 = 64 << 20;
/// How long the Hub may take to check what was sent to it.
const PATIENCE: Duration = Duration::from_secs(300);
/// How much of a server's error message is read, in bytes.
const MAX_MESSAGE: u64 = 4096;

/// One repository on a Hub, and how to reach it.
pub(crate) struct Client<'a> {
    agent: Agent,
    pub(crate) config: &'a HubConfig,
    pub(crate) kind: RepoKind,
    pub(crate) id: &'a RepoId,
    /// Whether a refusal means that the user may not write.
    is_writing: bool,
}

/// Whether any server has answered a request of this process.
static WAS_ANSWERED: AtomicBool = AtomicBool::new(false);

/// What the Hub announces of a file before it is downloaded.
pub(crate) struct FileHead {
    /// The ETag, if one was given.
    pub(crate) etag: Option<String>,
    /// The size in bytes, if one was given.
    pub(crate) size: Option<u64>,
}

/// How a body is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    Post,
    Put,
}

/// Why one attempt failed.
pub(crate) enum Failure {
    /// Another attempt may succeed.
    Passing {
        reason: String,
        /// The wait that the server asks for.
        wait: Option<Duration>,
    },
    /// Every further attempt would fail too.
    Final(HubError),
}

impl Failure {
    /// A failure that another attempt may not meet.
    pub(crate) fn passing(reason: impl ToString) -> Self {
        Self::Passing {
            reason: reason.to_string(),
            wait: None,
        }
    }
}

impl<'a> Client<'a> {
    pub(crate) fn new(config: &'a HubConfig, kind: RepoKind, id: &'a RepoId) -> Self {
        let settings = Agent::config_builder()
            .user_agent(concat!("mtlora/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // `send` follows them, since it knows which servers may see the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(
                TlsConfig::builder()
                    .root_certs(config.roots.clone())
                    .build(),
            )
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .build();
        Self {
            agent: settings.new_agent(),
            config,
            kind,
            id,
            is_writing: false,
        }
    }

    /// The same, for somebody who is about to write: whoever is refused then may not write.
    pub(crate) fn to_write(config: &'a HubConfig, kind: RepoKind, id: &'a RepoId) -> Self {
        Self {
            is_writing: true,
            ..Self::new(config, kind, id)
        }
    }

    /// What messages call the repository: "model org/name".
    pub(crate) fn what(&self) -> String {
        what(self.kind, self.id)
    }

    /// The Hub's list of what is at the repository's revision, as JSON.
    pub(crate) fn listing(&self) -> Result<Vec<u8>, HubError> {
        let url = format!(
            "{}/api/{}/{}/revision/{}",
            self.config.endpoint,
            self.kind.plural(),
            self.id.name(),
            escaped(self.id.revision(), false)
        );
        self.retried(&url, || {
            let response = self.send("GET", &url, None)?;
            let mut bytes = Vec::new();
            response
                .into_body()
                .into_reader()
                .take(MAX_LISTING + 1)
                .read_to_end(&mut bytes)
                .map_err(Failure::passing)?;
            if bytes.len() as u64 > MAX_LISTING {
                let message = format!("its list of files is longer than {MAX_LISTING} bytes");
                return Err(Failure::Final(self.protocol(&url, message)));
            }
            Ok(bytes)
        })
    }

    /// The address of a file at `commit`.
    pub(crate) fn file_url(&self, commit: &str, file: &str) -> String {
        let prefix = match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        format!(
            "{}/{prefix}{}/resolve/{commit}/{}",
            self.config.endpoint,
            self.id.name(),
            escaped(file, true)
        )
    }

    /// The hash and the size that the Hub announces for the file at `url`.
    pub(crate) fn head(&self, url: &str) -> Result<FileHead, HubError> {
        self.retried(url, || {
            let response = self.send("HEAD", url, None)?;
            let headers = response.headers();
            let linked = text(headers, "x-linked-etag");
            // A redirect's own ETag and length describe the redirect, not the file.
            let own =
                |name: &str| text(headers, name).filter(|_| response.status() == StatusCode::OK);
            let etag = linked.or_else(|| own(ETAG.as_str()));
            let size = text(headers, "x-linked-size").or_else(|| own(CONTENT_LENGTH.as_str()));
            Ok(FileHead {
                etag: etag.map(str::to_string),
                size: size.and_then(|size| size.parse().ok()),
            })
        })
    }

    /// The contents of the file at `url` from byte `from` on.
    pub(crate) fn body(&self, url: &str, from: u64) -> Result<Response<ureq::Body>, Failure> {
        self.send("GET", url, (from > 0).then_some(from))
    }

    /// Sends a request and follows redirects. A GET follows them to the contents; a HEAD stops at the answer that has the
    /// contents' hash, or before it would leave the Hub. The token goes to the Hub only.
    fn send(
        &self,
        method: &str,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<ureq::Body>, Failure> {
        let mut at: Uri = url
            .parse()
            .map_err(|_| Failure::Final(self.protocol(url, "is not an address".to_string())))?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(method, &at, from)?;
            if !response.status().is_redirection() {
                return self.accepted(&at, response, from);
            }
            let shown_at = without_query(&at);
            let location =
                text(response.headers(), LOCATION.as_str()).and_then(|to| resolve(&at, to));
            let Some(next) = location else {
                let message = "redirects without an address that can be followed".to_string();
                return Err(Failure::Final(self.protocol(&shown_at, message)));
            };
            if at.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                let message = format!(
                    "redirects from https to {}, where anyone on the network could change the contents; this was refused",
                    without_query(&next)
                );
                return Err(Failure::Final(self.protocol(&shown_at, message)));
            }
            let named = response.headers().contains_key("x-linked-etag");
            if method == "HEAD" && (named || !self.is_hub(&next)) {
                return Ok(response);
            }
            at = next;
        }
        let message = format!("redirects more than {MAX_REDIRECTS} times");
        Err(Failure::Final(self.protocol(url, message)))
    }

    fn send_once(
        &self,
        method: &str,
        at: &Uri,
        from: Option<u64>,
    ) -> Result<Response<ureq::Body>, Failure> {
        let mut request = match method {
            "HEAD" => self.agent.head(at),
            _ => self.agent.get(at),
        }
        // Without compression, lengths and ranges are those of the file.
        .header(ACCEPT_ENCODING, "identity");
        if let Some(from) = from {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = self.token_for(at) {
            request = request.header(AUTHORIZATION, token);
        }
        self.answered(at, request.call())
    }

    /// Sends `body` to `at`, which is an address of the Hub or of its storage, with these headers, and gives the answer
    /// whatever its status. Redirects are not followed.
    pub(crate) fn send_body(
        &self,
        method: Method,
        at: &Uri,
        headers: &[(&str, &str)],
        body: ureq::SendBody<'_>,
    ) -> Result<Response<ureq::Body>, Failure> {
        let mut request = match method {
            Method::Post => self.agent.post(at),
            Method::Put => self.agent.put(at),
        }
        .config()
        // The Hub checks what it got before it answers.
        .timeout_recv_response(Some(PATIENCE))
        .build();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.answered(at, request.send(body))
    }

    /// The answer to a request to `at`, or the failure of one that got none.
    fn answered(
        &self,
        at: &Uri,
        answer: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response<ureq::Body>, Failure> {
        match answer {
            Ok(answer) => {
                WAS_ANSWERED.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error) => Err(self.unanswered(at, error)),
        }
    }

    /// The failure for a request that got no answer.
    fn unanswered(&self, at: &Uri, error: ureq::Error) -> Failure {
        match error {
            // Without a network, or with a misspelt HF_ENDPOINT, waiting does not help. Once a server has answered, the network
            // is there, and is more likely to come back.
            error if is_unknown_host(&error) && !WAS_ANSWERED.load(Ordering::Relaxed) => {
                Failure::Final(self.unreachable(&without_query(at), 1, error.to_string()))
            }
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                // A certificate that rustls rejects, which another attempt would not change.
                let hint = "if your network has certificates of its own, set SSL_CERT_FILE to a PEM file with them";
                Failure::Final(self.unreachable(&without_query(at), 1, format!("{error}; {hint}")))
            }
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_) => Failure::passing(error),
            other => Failure::Final(HubError::Unreachable {
                what: self.what(),
                url: without_query(at),
                attempts: 1,
                reason: other.to_string(),
            }),
        }
    }

    /// The header that shows the user's token to the Hub. There is none for other servers.
    pub(crate) fn token_for(&self, at: &Uri) -> Option<String> {
        let token = self.config.token.as_ref()?;
        self.is_hub(at).then(|| token.bearer())
    }

    /// The response, if its status is a success.
    fn accepted(
        &self,
        at: &Uri,
        response: Response<ureq::Body>,
        from: Option<u64>,
    ) -> Result<Response<ureq::Body>, Failure> {
        let status = response.status();
        let resumable = from.is_some() && status == StatusCode::RANGE_NOT_SATISFIABLE;
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT || resumable {
            return Ok(response);
        }
        Err(self.failed(at, response))
    }

    /// What a status other than success stands for.
    pub(crate) fn failed(&self, at: &Uri, response: Response<ureq::Body>) -> Failure {
        let status = response.status();
        if matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504) {
            let wait =
                text(response.headers(), RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
            return Failure::Passing {
                reason: format!("status {status}"),
                wait: wait.map(Duration::from_secs),
            };
        }
        Failure::Final(self.refusal(at, response))
    }

    /// The error that a status other than success stands for on the Hub.
    fn refusal(&self, at: &Uri, response: Response<ureq::Body>) -> HubError {
        let status = response.status().as_u16();
        let header = |name| {
            text(response.headers(), name)
                .unwrap_or_default()
                .to_string()
        };
        let code = header("x-error-code");
        let mut message = header("x-error-message");
        let what = self.what();
        let endpoint = self.config.endpoint.clone();
        let with_token = self.config.token.is_some();
        if message.is_empty() {
            let mut text = String::new();
            let body = response.into_body().into_reader();
            // An answer that cannot be read only makes the message poorer.
            let _ = body.take(MAX_MESSAGE).read_to_string(&mut text);
            message = error_in(&text);
        }
        let not_found = |what| HubError::NotFound {
            what,
            kind: self.kind.noun(),
            endpoint: endpoint.clone(),
            with_token,
        };
        match (status, code.as_str()) {
            // The storage knows nothing of tokens.
            _ if self.is_writing && !self.is_hub(at) => HubError::Status {
                what,
                url: without_query(at),
                status,
                message,
            },
            (401 | 403, code)
                if self.is_writing && !matches!(code, "RepoNotFound" | "GatedRepo") =>
            {
                HubError::WriteDenied {
                    what,
                    endpoint,
                    status,
                    message,
                }
            }
            (_, "RevisionNotFound") => HubError::NoRevision {
                what: format!("{what}, revision {}", shown(self.id.revision())),
                endpoint,
            },
            (_, "GatedRepo") | (403, _) => HubError::Denied {
                what,
                endpoint,
                gated: code == "GatedRepo",
                with_token,
                message,
            },
            // The Hub also answers 401 for what does not exist, so that nobody can find out what is private.
            (401, _) if with_token && code != "RepoNotFound" => HubError::Denied {
                what,
                endpoint,
                gated: false,
                with_token,
                message,
            },
            (401, _) | (404, "RepoNotFound") => not_found(what),
            (404, "") if at.path().contains("/api/") => not_found(what),
            _ => HubError::Status {
                what,
                url: without_query(at),
                status,
                message,
            },
        }
    }

    /// The waits between attempts, from the first one on.
    pub(crate) fn waits(&self) -> Waits<'_> {
        Waits {
            config: self.config,
            failed: 0,
            wait: self.config.retry_wait,
        }
    }

    /// Calls `attempt` until it succeeds, fails for good, or has failed [`TRIES`] times in a row.
    pub(crate) fn retried<T>(
        &self,
        url: &str,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut waits = self.waits();
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { reason, wait }) => {
                    if !waits.next(&reason, wait) {
                        return Err(self.unreachable(url, waits.failed, reason));
                    }
                }
            }
        }
    }

    pub(crate) fn unreachable(&self, url: &str, attempts: usize, reason: String) -> HubError {
        HubError::Unreachable {
            what: self.what(),
            url: url.to_string(),
            attempts,
            reason,
        }
    }

    pub(crate) fn protocol(&self, url: &str, message: String) -> HubError {
        HubError::Protocol {
            what: self.what(),
            url: url.to_string(),
            message,
        }
    }

    /// Whether `at` is on the Hub itself: the same scheme, host and port as the endpoint.
    pub(crate) fn is_hub(&self, at: &Uri) -> bool {
        let endpoint: Option<Uri> = self.config.endpoint.parse().ok();
        endpoint.is_some_and(|endpoint| origin(&endpoint) == origin(at))
    }
}

/// What messages call a repository.
pub(crate) fn what(kind: RepoKind, id: &RepoId) -> String {
    format!("{} {id}", kind.noun())
}

/// Waits between attempts, each twice as long as the one before.
pub(crate) struct Waits<'a> {
    config: &'a HubConfig,
    /// How many attempts in a row have failed.
    pub(crate) failed: usize,
    wait: Duration,
}

impl Waits<'_> {
    /// Waits after an attempt that failed for this reason: as long as the server asked, if it did. False if there were too
    /// many of them.
    pub(crate) fn next(&mut self, reason: &str, asked: Option<Duration>) -> bool {
        self.failed += 1;
        if self.failed >= TRIES {
            return false;
        }
        let time = asked.unwrap_or(self.wait).min(MAX_WAIT);
        if let Some(on_retry) = self.config.on_retry {
            let endpoint = self.config.endpoint.as_str();
            on_retry(RetryWait {
                endpoint,
                reason,
                time,
            });
        }
        std::thread::sleep(time);
        self.wait *= 2;
        true
    }
}

/// Whether a server's name was not found. The standard library has no kind of error for it: on Unix its text says so, and on
/// Windows the number of the system's error does (WSAHOST_NOT_FOUND and the three after it).
fn is_unknown_host(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound => true,
        ureq::Error::Io(error) => match error.raw_os_error() {
            Some(code) => cfg!(windows) && (11001..=11004).contains(&code),
            None => error
                .to_string()
                .starts_with("failed to lookup address information"),
        },
        _ => false,
    }
}

pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The `error` of a JSON answer, or its `message` as LFS calls it. Other text, such as a web page, is left out of messages.
fn error_in(text: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let field = |name| value.as_ref()?.get(name)?.as_str();
    let error = field("error").or_else(|| field("message"));
    error.unwrap_or_default().to_string()
}

/// What tells servers apart: scheme, host and port.
fn origin(uri: &Uri) -> Option<(&str, String, u16)> {
    let scheme = uri.scheme_str()?;
    let default_port = if scheme == "https" { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(default_port);
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// The address that a Location header in the answer of `at` leads to.
pub(crate) fn resolve(at: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (at.scheme_str()?, at.authority()?.as_str());
    let whole = if location.contains("://") {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = whole.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    (known && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// An address as messages may show it: a storage server's query is a signature that would let anyone in.
pub(crate) fn without_query(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    let port = uri
        .port_u16()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!(
        "{}://{host}{port}{}",
        uri.scheme_str().unwrap_or_default(),
        uri.path()
    )
}

/// Text as a part of an address: every byte but letters, digits and `-._~` becomes %XX, and `/` too unless it is kept.
pub(crate) fn escaped(text: &str, keep_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || (byte == b'/' && keep_slashes);
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let at: Uri = "https://hub:1/a/b?q=1".parse().unwrap();
        for (location, expected) in [
            ("https://s3/x?sig=1", "https://s3/x?sig=1"),
            ("//s3/x", "https://s3/x"),
            ("/c", "https://hub:1/c"),
            ("c?d", "https://hub:1/a/c?d"),
        ] {
            assert_eq!(resolve(&at, location).unwrap().to_string(), expected);
        }
        for bad in ["file:///etc/passwd", "ftp://x/y", "http://", "\u{7f}://"] {
            assert_eq!(resolve(&at, bad), None, "{bad}");
        }
    }

    #[test]
    fn the_hub_is_one_scheme_host_and_port() {
        let config = HubConfig::new("c")
            .with_endpoint("https://Hub.co/base")
            .unwrap();
        let id: RepoId = "a/b".parse().unwrap();
        let client = Client::new(&config, RepoKind::Model, &id);
        let is_hub = |url: &str| client.is_hub(&url.parse().unwrap());
        assert!(is_hub("https://hub.co/x") && is_hub("https://HUB.co:443/x?y"));
        for other in [
            "http://hub.co/x",
            "https://hub.co:444/x",
            "https://cdn.hub.co/x",
            "https://hub.co.evil/x",
        ] {
            assert!(!is_hub(other), "{other}");
        }
    }

    /// Names that end in `.invalid` belong to nobody (RFC 2606).
    #[test]
    fn a_name_that_nobody_has_is_asked_for_once() {
        let config = HubConfig::new("c")
            .with_endpoint("http://hub.invalid")
            .unwrap()
            .with_retry_wait(Duration::from_millis(1));
        let id: RepoId = "a/b".parse().unwrap();
        let error = Client::new(&config, RepoKind::Model, &id).listing();
        let Err(HubError::Unreachable { attempts, url, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(attempts, 1);
        assert!(
            url.starts_with("http://hub.invalid/api/models/a/b"),
            "{url}"
        );
    }

    #[test]
    fn addresses_are_escaped_and_signatures_not_shown() {
        assert_eq!(escaped("refs/pr/1 é", false), "refs%2Fpr%2F1%20%C3%A9");
        assert_eq!(escaped("a/b c.json", true), "a/b%20c.json");
        let signed: Uri = "https://u:p@s3:8/x?Signature=secret".parse().unwrap();
        assert_eq!(without_query(&signed), "https://s3:8/x");
    }
}
