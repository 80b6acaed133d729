//! HTTP with the Hub: redirects, the token, and trying again.

use std::io::Read;
use std::time::Duration;

use ureq::Agent;
use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::{Response, StatusCode, Uri};
use ureq::tls::TlsConfig;

use crate::environment::HubConfig;
use crate::error::{HubError, shown};
use crate::name::{RepoId, RepoKind};

/// How often in a row something is tried that does not succeed.
pub(crate) const TRIES: usize = 5;
const MAX_REDIRECTS: usize = 10;
/// The longest that a server may tell us to wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest list of a repository's files, in bytes.
const MAX_LISTING: u64 = 64 << 20;
/// The largest message of a server that is read, in bytes.
const MAX_MESSAGE: u64 = 4096;

/// One repository on a Hub, and how to reach it.
pub(crate) struct Client<'a> {
    agent: Agent,
    config: &'a HubConfig,
    kind: RepoKind,
    id: &'a RepoId,
}

/// What the Hub says of a file before it is fetched.
pub(crate) struct FileHead {
    /// The ETag, if one was given.
    pub(crate) etag: Option<String>,
    /// In bytes, if it was said.
    pub(crate) size: Option<u64>,
}

/// Why one try failed.
pub(crate) enum Failure {
    /// Another try may succeed; after this long, if the server said so.
    Passing(String, Option<Duration>),
    /// It won't.
    Final(HubError),
}

impl<'a> Client<'a> {
    pub(crate) fn new(config: &'a HubConfig, kind: RepoKind, id: &'a RepoId) -> Self {
        let settings = Agent::config_builder()
            .user_agent(concat!("mtlora/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Each is followed here, where it is known who may see the token.
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
            .build();
        Self {
            agent: settings.new_agent(),
            config,
            kind,
            id,
        }
    }

    /// What messages call the repository: "model org/name".
    pub(crate) fn what(&self) -> String {
        what(self.kind, self.id)
    }

    /// The answer to the question what is at the repository's revision: JSON.
    pub(crate) fn listing(&self) -> Result<Vec<u8>, HubError> {
        let url = format!(
            "{}/api/{}/{}/revision/{}",
            self.config.endpoint,
            self.kind.plural(),
            self.id.name(),
            escaped(self.id.revision(), false)
        );
        self.again(&url, || {
            let response = self.send("GET", &url, None)?;
            let mut bytes = Vec::new();
            response
                .into_body()
                .into_reader()
                .take(MAX_LISTING + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::Passing(error.to_string(), None))?;
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

    /// What is said of the file at `url`.
    pub(crate) fn head(&self, url: &str) -> Result<FileHead, HubError> {
        self.again(url, || {
            let response = self.send("HEAD", url, None)?;
            let headers = response.headers();
            let linked = text(headers, "x-linked-etag");
            // Where a storage server answered instead of the Hub, its ETag and length are its own.
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

    /// Sends a request and follows redirects: a GET to where the contents are, a HEAD as long as it is the Hub that
    /// answers and the answer does not name the contents' hash. The token goes to the Hub only.
    fn send(
        &self,
        method: &str,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<ureq::Body>, Failure> {
        let mut at: Uri = url
            .parse()
            .map_err(|_| Failure::Final(self.protocol(url, "is no address".to_string())))?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(method, &at, from)?;
            if !response.status().is_redirection() {
                return self.accepted(&at, response, from);
            }
            let shown_at = without_query(&at);
            let location =
                text(response.headers(), LOCATION.as_str()).and_then(|to| resolve(&at, to));
            let Some(next) = location else {
                let message = "redirects to no address".to_string();
                return Err(Failure::Final(self.protocol(&shown_at, message)));
            };
            if at.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                let message = format!(
                    "redirects from https to {}, which anybody on the way could change; refused",
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
        // Lengths and ranges are to be those of the file itself.
        .header(ACCEPT_ENCODING, "identity");
        if let Some(from) = from {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = self.config.token.as_ref().filter(|_| self.is_hub(at)) {
            request = request.header(AUTHORIZATION, token.bearer());
        }
        request.call().map_err(|error| match error {
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                // What rustls says of certificates: it will say so again.
                let hint =
                    "set SSL_CERT_FILE to a PEM file if your network has certificates of its own";
                Failure::Final(self.unreachable(&without_query(at), 1, format!("{error}; {hint}")))
            }
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_) => Failure::Passing(error.to_string(), None),
            other => Failure::Final(HubError::Unreachable {
                what: self.what(),
                url: without_query(at),
                attempts: 1,
                reason: other.to_string(),
            }),
        })
    }

    /// The response, if it is the one that was asked for.
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
        if matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504) {
            let wait =
                text(response.headers(), RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
            let reason = format!("status {status}");
            return Err(Failure::Passing(reason, wait.map(Duration::from_secs)));
        }
        Err(Failure::Final(self.refusal(at, response)))
    }

    /// What a status that is no success means on the Hub.
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
            // It only makes the message better.
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
            // The Hub says 401 of what does not exist, too, so as not to tell who has what.
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

    /// How long to wait between tries.
    pub(crate) fn waits(&self) -> Waits {
        Waits {
            failed: 0,
            wait: self.config.retry_wait,
        }
    }

    /// Tries until it succeeds, fails for good, or has failed often.
    fn again<T>(
        &self,
        url: &str,
        mut one: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut waits = self.waits();
        loop {
            match one() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason, wait)) => {
                    if !waits.next(wait) {
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
    fn is_hub(&self, at: &Uri) -> bool {
        let endpoint: Option<Uri> = self.config.endpoint.parse().ok();
        endpoint.is_some_and(|endpoint| origin(&endpoint) == origin(at))
    }
}

/// What messages call a repository.
pub(crate) fn what(kind: RepoKind, id: &RepoId) -> String {
    format!("{} {id}", kind.noun())
}

/// How long to wait between tries.
pub(crate) struct Waits {
    /// Tries that failed in a row.
    pub(crate) failed: usize,
    wait: Duration,
}

impl Waits {
    /// Waits after a failure, as long as the server said if it did. False: it has failed often enough.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> bool {
        self.failed += 1;
        if self.failed >= TRIES {
            return false;
        }
        std::thread::sleep(asked.unwrap_or(self.wait).min(MAX_WAIT));
        self.wait *= 2;
        true
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The `error` of a JSON answer; other text is of no use in a message.
fn error_in(text: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let error = value
        .as_ref()
        .and_then(|value| value.get("error")?.as_str());
    error.unwrap_or_default().to_string()
}

fn origin(uri: &Uri) -> Option<(&str, String, u16)> {
    let scheme = uri.scheme_str()?;
    let usual = match scheme {
        "https" => 443,
        _ => 80,
    };
    let port = uri.port_u16().unwrap_or(usual);
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Where a Location header leads from `at`.
fn resolve(at: &Uri, location: &str) -> Option<Uri> {
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

/// An address as a message may show it: storage servers' queries are signatures that let anybody in.
fn without_query(uri: &Uri) -> String {
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

/// Text as a part of an address: everything but letters, digits and `-._~` becomes %XX; `/` as well, unless it stays.
fn escaped(text: &str, keep_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || (byte == b'/' && keep_slashes);
        match plain {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
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

    #[test]
    fn addresses_are_escaped_and_signatures_not_shown() {
        assert_eq!(escaped("refs/pr/1 é", false), "refs%2Fpr%2F1%20%C3%A9");
        assert_eq!(escaped("a/b c.json", true), "a/b%20c.json");
        let signed: Uri = "https://u:p@s3:8/x?Signature=secret".parse().unwrap();
        assert_eq!(without_query(&signed), "https://s3:8/x");
    }
}
