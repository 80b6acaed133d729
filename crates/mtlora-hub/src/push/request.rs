//! Requests that write: with JSON to the Hub, and with a file's contents to its storage.

use std::io::{self, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::SendBody;
use ureq::http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION,
};
use ureq::http::{Response, Uri};

use crate::client::{Client, Failure, Method, resolve, text, without_query};
use crate::error::HubError;
use crate::progress::Progress;
use crate::push::files::UploadFile;

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const LFS_JSON: &str = "application/vnd.git-lfs+json";
/// The largest answer that is read, in bytes. The addresses of a file's ten thousand parts are within it.
const MAX_ANSWER: u64 = 64 << 20;
const MAX_REDIRECTS: usize = 10;

impl Client<'_> {
    /// Posts `body` to an address of the Hub, with the token, and gives the answer whatever its status. The Hub redirects
    /// what is sent to a renamed repository; a redirect to another server is refused.
    pub(crate) fn post(
        &self,
        url: &str,
        form: &str,
        body: &[u8],
    ) -> Result<(Uri, Response<ureq::Body>), Failure> {
        let mut at = self.address(url).map_err(Failure::Final)?;
        for _ in 0..=MAX_REDIRECTS {
            let token = self.token_for(&at);
            let accept = if form == NDJSON { JSON } else { form };
            let mut headers = vec![
                (ACCEPT.as_str(), accept),
                (ACCEPT_ENCODING.as_str(), "identity"),
                (CONTENT_TYPE.as_str(), form),
            ];
            if let Some(token) = &token {
                headers.push((AUTHORIZATION.as_str(), token));
            }
            let mut reader = body;
            let response = self.send_body(
                Method::Post,
                &at,
                &[&headers[..], &[length(&body.len().to_string())]].concat(),
                SendBody::from_reader(&mut reader),
            )?;
            if !response.status().is_redirection() {
                return Ok((at, response));
            }
            let location =
                text(response.headers(), LOCATION.as_str()).and_then(|to| resolve(&at, to));
            at = match location.filter(|next| self.is_hub(next)) {
                Some(next) => next,
                None => {
                    let message =
                        "redirects what is sent to it to another server; this was refused";
                    return Err(Failure::Final(
                        self.protocol(&without_query(&at), message.to_string()),
                    ));
                }
            };
        }
        let message = format!("redirects more than {MAX_REDIRECTS} times");
        Err(Failure::Final(self.protocol(url, message)))
    }

    /// Posts JSON to the Hub until it is answered, and reads the answer.
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        url: &str,
        form: &str,
        body: &impl Serialize,
    ) -> Result<T, HubError> {
        let body = self.json(url, body)?;
        self.retried(url, || {
            let (at, response) = self.post(url, form, &body)?;
            let response = self.granted(&at, response)?;
            self.answer(&at, response)
        })
    }

    /// Posts JSON to the Hub until it is accepted. What it answers is not read.
    pub(crate) fn tell(
        &self,
        url: &str,
        form: &str,
        body: &impl Serialize,
    ) -> Result<(), HubError> {
        let body = self.json(url, body)?;
        self.retried(url, || {
            let (at, response) = self.post(url, form, &body)?;
            self.granted(&at, response).map(drop)
        })
    }

    fn json(&self, url: &str, body: &impl Serialize) -> Result<Vec<u8>, HubError> {
        serde_json::to_vec(body).map_err(|error| self.protocol(url, error.to_string()))
    }

    /// The response, if its status is a success.
    pub(crate) fn granted(
        &self,
        at: &Uri,
        response: Response<ureq::Body>,
    ) -> Result<Response<ureq::Body>, Failure> {
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.failed(at, response))
        }
    }

    /// The JSON of an answer.
    pub(crate) fn answer<T: DeserializeOwned>(
        &self,
        at: &Uri,
        response: Response<ureq::Body>,
    ) -> Result<T, Failure> {
        let wrong = |message| Failure::Final(self.protocol(&without_query(at), message));
        let mut bytes = Vec::new();
        let mut body = response.into_body().into_reader().take(MAX_ANSWER + 1);
        body.read_to_end(&mut bytes).map_err(Failure::passing)?;
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(wrong(format!(
                "its answer is longer than {MAX_ANSWER} bytes"
            )));
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("its answer cannot be read: {error}")))
    }

    /// Puts `size` bytes of `file`, from byte `from` on, to an address of the storage. The token is not sent.
    pub(crate) fn put(
        &self,
        at: &Uri,
        headers: &[(&str, &str)],
        file: &UploadFile,
        (from, size): (u64, u64),
        progress: &mut dyn Progress,
    ) -> Result<Response<ureq::Body>, Failure> {
        let contents = file.open_at(from).map_err(Failure::Final)?;
        let mut body = Sending {
            contents: contents.take(size),
            sent: from,
            end: from + size,
            broken: None,
            progress,
        };
        let size = size.to_string();
        let headers = [headers, &[length(&size)]].concat();
        let result = self.send_body(Method::Put, at, &headers, SendBody::from_reader(&mut body));
        // Trouble with the file here would look like trouble with the network.
        match body.broken {
            Some(Broken::Unread(error)) => Err(Failure::Final(file.unread(error))),
            Some(Broken::Stopped) => Err(Failure::Final(HubError::Stopped)),
            Some(Broken::Short) => Err(Failure::Final(file.changed())),
            None => self.granted(at, result?),
        }
    }

    /// An address that the Hub gave, or one below its own. Whoever uses https is not led to http.
    pub(crate) fn address(&self, url: &str) -> Result<Uri, HubError> {
        let uri: Option<Uri> = url.parse().ok();
        let fits = |uri: &Uri| {
            let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
            let endpoint: Option<Uri> = self.config.endpoint.parse().ok();
            let is_open = endpoint.is_some_and(|endpoint| endpoint.scheme_str() == Some("http"));
            let is_safe = uri.scheme_str() == Some("https") || is_open;
            is_known && is_safe && uri.host().is_some_and(|host| !host.is_empty())
        };
        uri.filter(fits).ok_or_else(|| {
            let shown = url.split('?').next().unwrap_or_default();
            let message = "is no address that a file can be sent to".to_string();
            self.protocol(&crate::error::shown(shown), message)
        })
    }
}

fn length(bytes: &str) -> (&str, &str) {
    (CONTENT_LENGTH.as_str(), bytes)
}

/// A part of a file on its way.
struct Sending<'a, R> {
    contents: R,
    sent: u64,
    end: u64,
    broken: Option<Broken>,
    progress: &'a mut dyn Progress,
}

/// What went wrong on this side.
enum Broken {
    Unread(io::Error),
    Short,
    Stopped,
}

impl<R: Read> Read for Sending<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.progress.is_stopped() {
            self.broken = Some(Broken::Stopped);
            return Err(io::Error::other("stopped"));
        }
        match self.contents.read(buffer) {
            Ok(0) if self.sent < self.end && !buffer.is_empty() => {
                self.broken = Some(Broken::Short);
                Err(io::Error::other("the file ended early"))
            }
            Ok(length) => {
                self.sent += length as u64;
                self.progress.advanced(self.sent);
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let reason = io::Error::new(error.kind(), error.to_string());
                self.broken = Some(Broken::Unread(error));
                Err(reason)
            }
        }
    }
}
