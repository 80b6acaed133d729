//! The Hub's address, the cache's folder and the user's token, from the variables that Python's library reads too.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, parse_pem};

use crate::error::HubError;

/// The Hub that is used where HF_ENDPOINT is not set.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

const RETRY_WAIT: Duration = Duration::from_millis(500);
/// The largest file of certificates that is read, in bytes.
const MAX_CERTIFICATES: u64 = 16 << 20;
/// The largest token file that is read, in bytes. A token has some forty characters.
const MAX_TOKEN_FILE: u64 = 4096;

/// The user's access token. Neither `Debug` nor any message shows it.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The settings of a [`Hub`](crate::Hub).
#[derive(Clone, Debug)]
pub struct HubConfig {
    pub(crate) endpoint: String,
    pub(crate) cache: PathBuf,
    pub(crate) token: Option<Token>,
    pub(crate) offline: bool,
    pub(crate) retry_wait: Duration,
    pub(crate) on_retry: Option<fn(RetryWait<'_>)>,
    pub(crate) roots: RootCerts,
}

/// A wait before a failed request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryWait<'a> {
    /// The Hub's address.
    pub endpoint: &'a str,
    /// Why the request failed, as "status 429 Too Many Requests".
    pub reason: &'a str,
    /// How long the wait is: as long as the server asked, up to a minute.
    pub time: Duration,
}

impl HubConfig {
    /// The Hub at [`DEFAULT_ENDPOINT`], without a token, with this folder as the cache.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.to_string(),
            cache: cache.into(),
            token: None,
            offline: false,
            retry_wait: RETRY_WAIT,
            on_retry: None,
            roots: RootCerts::WebPki,
        }
    }

    /// The settings that the environment variables ask for.
    ///
    /// | variable | what it sets |
    /// |---|---|
    /// | `HF_HUB_CACHE`, or `HUGGINGFACE_HUB_CACHE` | the cache; else `hub` in `HF_HOME` |
    /// | `HF_HOME` | the folder of cache and token; else `huggingface` in `XDG_CACHE_HOME`; else `~/.cache/huggingface` |
    /// | `HF_ENDPOINT` | the Hub's address |
    /// | `HF_TOKEN`, or `HUGGING_FACE_HUB_TOKEN` | the token; else what is in the file `HF_TOKEN_PATH`, else in `token` in `HF_HOME` |
    /// | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | if true, no token file is read |
    /// | `SSL_CERT_FILE`, or `REQUESTS_CA_BUNDLE`, or `CURL_CA_BUNDLE` | the certificates to trust, in place of Mozilla's: a PEM file |
    /// | `HF_HUB_OFFLINE`, or `TRANSFORMERS_OFFLINE` | if true (1, ON, YES, TRUE), nothing is fetched |
    ///
    /// # Errors
    /// There is no home folder where one is needed, the endpoint is not an address, the token has characters that tokens
    /// do not have, the token file cannot be read, or the file of certificates has none.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(&|name| std::env::var_os(name), std::env::home_dir())
    }

    fn from_variables(
        variable: &dyn Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<Self, HubError> {
        let set = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = variable(name).filter(|value| !value.is_empty())?;
                Some((*name, value))
            })
        };
        let text = |names: &[&'static str]| match set(names) {
            None => Ok(None),
            Some((name, value)) => match value.into_string() {
                Ok(value) => Ok(Some((name, value.trim().to_string()))),
                Err(_) => Err(wrong(name, "is not UTF-8")),
            },
        };
        let flag = |names: &[&'static str]| -> Result<bool, HubError> {
            let value = text(names)?.map(|(_, value)| value.to_ascii_uppercase());
            Ok(value.is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.as_str())))
        };
        let expand = |path: PathBuf| match (path.strip_prefix("~"), &home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        };
        let folder =
            |names: &[&'static str]| set(names).map(|(_, value)| expand(PathBuf::from(value)));

        let hf_home = folder(&["HF_HOME"])
            .or_else(|| folder(&["XDG_CACHE_HOME"]).map(|cache| cache.join("huggingface")))
            .or_else(|| Some(home.as_ref()?.join(".cache").join("huggingface")));
        let cache = folder(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
            .or_else(|| Some(hf_home.as_ref()?.join("hub")))
            .ok_or_else(|| {
                wrong(
                    "HF_HOME",
                    "is not set, and there is no home folder; set it to a folder",
                )
            })?;
        let endpoint = match text(&["HF_ENDPOINT"])? {
            Some((name, value)) => {
                check_endpoint(&value).map_err(|message| wrong(name, message))?;
                value.trim_end_matches('/').to_string()
            }
            None => DEFAULT_ENDPOINT.to_string(),
        };
        let token = match text(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])? {
            Some((name, value)) => checked_token(name, value)?,
            None if flag(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"])? => None,
            None => match folder(&["HF_TOKEN_PATH"]).or_else(|| Some(hf_home?.join("token"))) {
                Some(path) => token_in(&path)?,
                None => None,
            },
        };
        Ok(Self {
            endpoint,
            cache,
            token,
            offline: flag(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])?,
            retry_wait: RETRY_WAIT,
            on_retry: None,
            roots: match folder(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]) {
                Some(path) => roots_in(&path)?,
                None => RootCerts::WebPki,
            },
        })
    }

    /// Uses another Hub, whose address begins with `http://` or `https://`.
    ///
    /// # Errors
    /// The address does not, or it has a query or a user in it.
    pub fn with_endpoint(mut self, endpoint: &str) -> Result<Self, HubError> {
        check_endpoint(endpoint).map_err(|message| wrong("the endpoint", message))?;
        self.endpoint = endpoint.trim_end_matches('/').to_string();
        Ok(self)
    }

    /// Uses this token, which is sent to the endpoint and nowhere else.
    ///
    /// # Errors
    /// The token has characters that tokens do not have.
    pub fn with_token(mut self, token: &str) -> Result<Self, HubError> {
        self.token = checked_token("the token", token.trim().to_string())?;
        Ok(self)
    }

    /// Sets how long to wait before a failed request is tried again; the wait doubles with each further attempt
    /// [default: half a second].
    #[must_use]
    pub fn with_retry_wait(mut self, wait: Duration) -> Self {
        self.retry_wait = wait;
        self
    }

    /// Sets what is called before each wait, to tell the user: a server that is overloaded may ask for long ones.
    #[must_use]
    pub fn with_on_retry(mut self, on_retry: fn(RetryWait<'_>)) -> Self {
        self.on_retry = Some(on_retry);
        self
    }

    /// Sets whether only the cache may be used, without any request.
    #[must_use]
    pub fn with_offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }
}

fn wrong(variable: impl fmt::Display, message: &str) -> HubError {
    HubError::Environment {
        variable: variable.to_string(),
        message: message.to_string(),
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let uri: ureq::http::Uri = endpoint
        .parse()
        .map_err(|_| "is not an address; write it as https://huggingface.co")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(
            "does not begin with http:// or https:// and a host; write it as https://huggingface.co",
        );
    }
    if uri.query().is_some()
        || uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("must not have a query or a user in it; put the token into HF_TOKEN");
    }
    Ok(())
}

fn checked_token(source: impl fmt::Display, token: String) -> Result<Option<Token>, HubError> {
    if token.is_empty() {
        return Ok(None);
    }
    // Anything else could end the header that it is sent in.
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Some(Token(token)))
    } else {
        Err(wrong(
            source,
            "does not hold a token: it has spaces, line breaks or other characters that tokens do not have",
        ))
    }
}

fn token_in(path: &Path) -> Result<Option<Token>, HubError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HubError::io(path, "reading the token", error)),
    };
    if !metadata.is_file() || metadata.len() > MAX_TOKEN_FILE {
        return Err(wrong(
            path.display(),
            "does not hold a token: it is a folder or too large",
        ));
    }
    let text =
        fs::read_to_string(path).map_err(|error| HubError::io(path, "reading the token", error))?;
    checked_token(path.display(), text.trim().to_string())
}

/// The certificates in a PEM file, or Mozilla's if the file does not exist.
fn roots_in(path: &Path) -> Result<RootCerts, HubError> {
    let failed = |error| HubError::io(path, "reading the certificates", error);
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RootCerts::WebPki),
        opened => opened.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_CERTIFICATES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let certificates: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(wrong(
            path.display(),
            "holds no certificate; set SSL_CERT_FILE to a PEM file",
        ));
    }
    Ok(RootCerts::from(certificates))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<HubConfig, HubError> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        HubConfig::from_variables(&find, Some(PathBuf::from("/home/u")))
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        for (variables, cache) in [
            (&[][..], "/home/u/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (
                &[("HF_HOME", "~/h"), ("XDG_CACHE_HOME", "/x")],
                "/home/u/h/hub",
            ),
            (&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")], "/c"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HOME", "")], "/home/u/.cache/huggingface/hub"),
        ] {
            assert_eq!(
                config(variables).unwrap().cache,
                Path::new(cache),
                "{variables:?}"
            );
        }
        assert!(HubConfig::from_variables(&|_| None, None).is_err());
    }

    #[test]
    fn offline_is_what_python_takes_for_true() {
        for (value, offline) in [
            ("1", true),
            ("true", true),
            ("Yes", true),
            ("on", true),
            ("0", false),
            ("", false),
        ] {
            assert_eq!(
                config(&[("HF_HUB_OFFLINE", value)]).unwrap().offline,
                offline
            );
        }
        assert!(config(&[("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
    }

    #[test]
    fn endpoints_are_addresses() {
        let endpoint = |value| config(&[("HF_ENDPOINT", value)]).map(|config| config.endpoint);
        assert_eq!(config(&[]).unwrap().endpoint, DEFAULT_ENDPOINT);
        assert_eq!(
            endpoint("http://127.0.0.1:8080/").unwrap(),
            "http://127.0.0.1:8080"
        );
        assert_eq!(
            endpoint("https://mirror/hub").unwrap(),
            "https://mirror/hub"
        );
        for bad in [
            "huggingface.co",
            "ftp://x",
            "file:///x",
            "https://",
            "http://u:p@x",
            "http://x/?a=b",
            "\u{1}",
        ] {
            let error = endpoint(bad).unwrap_err().to_string();
            assert!(error.starts_with("HF_ENDPOINT: "), "{error}");
        }
    }

    #[test]
    fn a_token_is_found_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let bearer = |variables: &[(&str, &str)]| {
            config(variables).unwrap().token.map(|token| token.bearer())
        };
        assert_eq!(bearer(&[("HF_HOME", home)]), Some("Bearer hf_file".into()));
        assert_eq!(
            bearer(&[("HF_HOME", home), ("HF_TOKEN", " hf_set ")]),
            Some("Bearer hf_set".into())
        );
        assert_eq!(
            bearer(&[("HF_TOKEN_PATH", file.to_str().unwrap())]),
            Some("Bearer hf_file".into())
        );
        assert_eq!(
            bearer(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]),
            None
        );
        assert_eq!(bearer(&[]), None);
        let text = format!("{:?}", config(&[("HF_TOKEN", "hf_secret")]).unwrap());
        assert!(!text.contains("secret"), "{text}");
        let error = config(&[("HF_TOKEN", "hf_secret\r\nHost: x")]).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        for (variable, says) in [
            ("SSL_CERT_FILE", "no certificate"),
            ("CURL_CA_BUNDLE", "no certificate"),
        ] {
            let error = config(&[(variable, file.to_str().unwrap())]).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        fs::write(&file, [b'x'; 5000]).unwrap();
        assert!(config(&[("HF_HOME", home)]).is_err());
    }
}
