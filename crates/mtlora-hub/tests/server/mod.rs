//! A test Hub on the loopback address. It lists files and serves small ones itself; a storage server on another port
//! serves the large ones.
//!
//! It has only what a client of the Hub needs: HEAD and GET, redirects, ranges, the `X-` headers, tokens; and what
//! writing needs, in [`writing`]. It misbehaves on request.
#![allow(dead_code)] // No test file uses all of it.

pub mod writing;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha1::Digest;

pub const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";
/// Files of this many bytes or more are kept by the storage server.
pub const LARGE: usize = 20_000;
/// The signature in the address of a stored file, which gives anybody access; no message may show it.
pub const SIGNATURE: &str = "X-Signature=very-secret";

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whether the request went to the storage server.
    pub storage: bool,
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    /// What was sent; only its beginning if the server broke off.
    pub body: Vec<u8>,
}

impl Request {
    /// What was sent, which must be JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What a request gets in place of its answer if a text is in its line.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A status with these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The right answer, but the connection ends after this many bytes of the body.
    Cut(usize),
    /// The right answer with a changed byte in the middle of the body.
    Corrupt,
    /// The right answer with more bytes at the end of the body.
    TooLong,
    /// The whole file, whatever range was asked for.
    NoRanges,
    /// Other values of headers; an empty value removes the header.
    Headers(Vec<(&'static str, String)>),
    /// No answer at all, although the request is carried out.
    HangUp,
    /// The connection ends after this many bytes of what is sent, and the request is not carried out.
    CutRequest(usize),
    /// An answer with this status and this JSON, and the request is not carried out.
    Answer(u16, String),
}

#[derive(Clone, Debug)]
pub struct Repo {
    /// "models" or "datasets".
    pub kind: &'static str,
    pub name: String,
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
    /// If there is a token, only requests with it are answered.
    pub token: Option<String>,
    /// The file that its `.gitignore` excludes.
    pub ignored: Option<String>,
}

#[derive(Default)]
pub struct State {
    stored: writing::Stored,
    repos: Vec<Repo>,
    /// The text in "METHOD path", the fault, and how often it still happens.
    faults: Vec<(String, Fault, usize)>,
    log: Vec<Request>,
    /// Old names and new ones.
    renamed: Vec<(String, String)>,
}

pub struct Server {
    state: Arc<Mutex<State>>,
    hub: u16,
}

impl Server {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let storage = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = hub.local_addr().unwrap().port();
        let storage_port = storage.local_addr().unwrap().port();
        for (listener, is_storage) in [(hub, false), (storage, true)] {
            let state = state.clone();
            // The threads end with the process.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    std::thread::spawn(move || {
                        answer(stream, &state, is_storage, (port, storage_port))
                    });
                }
            });
        }
        Self { state, hub: port }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.hub)
    }

    pub fn model<C: Into<Vec<u8>>>(
        &self,
        name: &str,
        files: impl IntoIterator<Item = (&'static str, C)>,
    ) {
        self.add("models", name, files);
    }

    pub fn dataset<C: Into<Vec<u8>>>(
        &self,
        name: &str,
        files: impl IntoIterator<Item = (&'static str, C)>,
    ) {
        self.add("datasets", name, files);
    }

    fn add<C: Into<Vec<u8>>>(
        &self,
        kind: &'static str,
        name: &str,
        files: impl IntoIterator<Item = (&'static str, C)>,
    ) {
        let files = files
            .into_iter()
            .map(|(name, contents)| (name.to_string(), contents.into()));
        self.state.lock().unwrap().repos.push(Repo {
            kind,
            name: name.to_string(),
            commit: COMMIT.to_string(),
            files: files.collect(),
            token: None,
            ignored: None,
        });
    }

    /// Changes the repository of that name.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Repo)) {
        let mut state = self.state.lock().unwrap();
        change(
            state
                .repos
                .iter_mut()
                .find(|repo| repo.name == name)
                .unwrap(),
        );
    }

    pub fn rename(&self, old: &str, new: &str) {
        let mut state = self.state.lock().unwrap();
        state.renamed.push((old.to_string(), new.to_string()));
    }

    /// The next `times` requests with `text` in "METHOD path" go wrong.
    pub fn fault(&self, text: &str, fault: Fault, times: usize) {
        self.state
            .lock()
            .unwrap()
            .faults
            .push((text.to_string(), fault, times));
    }

    /// A file of the repository of that name, if it has it.
    pub fn file(&self, name: &str, file: &str) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let repo = state.repos.iter().find(|repo| repo.name == name)?;
        repo.files.get(file).cloned()
    }

    /// All files of the repository of that name.
    pub fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.state.lock().unwrap();
        let repo = state.repos.iter().find(|repo| repo.name == name);
        repo.unwrap().files.clone()
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The hash by which the Hub names a file's contents.
pub fn etag(contents: &[u8]) -> String {
    if contents.len() >= LARGE {
        return hex(sha2::Sha256::digest(contents));
    }
    let mut hasher = sha1::Sha1::new();
    hasher.update(format!("blob {}\0", contents.len()));
    hasher.update(contents);
    hex(hasher.finalize())
}

fn answer(stream: TcpStream, state: &Mutex<State>, storage: bool, ports: (u16, u16)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_string());
    }
    let header = |name: &str| {
        lines.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_string())
        })
    };
    let mut words = lines[0].split(' ');
    let mut request = Request {
        storage,
        method: words.next().unwrap().to_string(),
        path: words.next().unwrap().to_string(),
        range: header("range"),
        authorization: header("authorization"),
        content_type: header("content-type"),
        body: Vec::new(),
    };
    assert_eq!(header("transfer-encoding"), None);
    let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
    let line = format!("{} {}", request.method, request.path);
    let cut = state.lock().unwrap().faults.iter_mut().find_map(|fault| {
        let Fault::CutRequest(bytes) = fault.1 else {
            return None;
        };
        let is_meant = fault.2 > 0 && line.contains(fault.0.as_str());
        is_meant.then(|| {
            fault.2 -= 1;
            bytes
        })
    });
    request.body = vec![0; cut.unwrap_or(length).min(length)];
    if reader.read_exact(&mut request.body).is_err() {
        return;
    }
    if cut.is_some() {
        state.lock().unwrap().log.push(request);
        return;
    }
    let (reply, fault) = {
        let mut state = state.lock().unwrap();
        let at = state
            .faults
            .iter()
            .position(|(text, _, times)| *times > 0 && line.contains(text.as_str()));
        let fault = at.map(|at| {
            state.faults[at].2 -= 1;
            state.faults[at].1.clone()
        });
        let ranges = !matches!(fault, Some(Fault::NoRanges));
        let is_refused = matches!(fault, Some(Fault::Status(..) | Fault::Answer(..)));
        let reply = match request.method.as_str() {
            "POST" | "PUT" if is_refused => refused(500, "", ""),
            "POST" | "PUT" => writing::reply(&mut state, &request, ports),
            _ => reply(&state, &request, ports.1, ranges),
        };
        state.log.push(request.clone());
        (reply, fault)
    };
    let Reply {
        mut status,
        mut headers,
        mut body,
    } = reply;
    let mut sent = None;
    match fault {
        Some(Fault::HangUp) => return,
        Some(Fault::Status(code, more)) => (status, headers, body) = (code, more, Vec::new()),
        Some(Fault::Cut(bytes)) => sent = Some(bytes),
        Some(Fault::Corrupt) => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        Some(Fault::TooLong) => body.extend([7; 1000]),
        Some(Fault::Headers(other)) => {
            for (name, value) in other {
                headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
                if !value.is_empty() {
                    headers.push((name, value));
                }
            }
        }
        Some(Fault::Answer(code, text)) => {
            (status, headers, body) = (code, Vec::new(), text.into_bytes());
        }
        Some(Fault::NoRanges | Fault::CutRequest(_)) | None => (),
    }
    let mut text = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut stream = stream;
    if request.method == "HEAD" {
        body.clear();
    }
    body.truncate(sent.unwrap_or(usize::MAX));
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.write_all(&body);
    let _ = stream.flush();
    let _ = stream.shutdown(Shutdown::Write);
}

pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn refused(status: u16, code: &str, message: &str) -> Reply {
    Reply {
        status,
        headers: vec![
            ("X-Error-Code", code.into()),
            ("X-Error-Message", message.into()),
        ],
        body: Vec::new(),
    }
}

fn reply(state: &State, request: &Request, storage_port: u16, ranges: bool) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if request.storage {
        let all = state.repos.iter().flat_map(|repo| repo.files.values());
        let found = all
            .into_iter()
            .find(|contents| path == format!("/store/{}", etag(contents)));
        return match found {
            Some(contents) if query == SIGNATURE => part(contents, request, Vec::new(), ranges),
            _ => refused(403, "", "no signature"),
        };
    }
    for (old, new) in &state.renamed {
        if path.contains(old.as_str()) {
            return Reply {
                status: 307,
                headers: vec![("Location", path.replace(old, new))],
                body: Vec::new(),
            };
        }
    }
    for repo in &state.repos {
        let listing = format!("/api/{}/{}/revision/", repo.kind, repo.name);
        let prefix = if repo.kind == "datasets" {
            "datasets/"
        } else {
            ""
        };
        let files = format!("/{prefix}{}/resolve/", repo.name);
        let (asked, is_listing) = match (path.strip_prefix(&listing), path.strip_prefix(&files)) {
            (Some(asked), _) => (asked, true),
            (_, Some(asked)) => (asked, false),
            _ => continue,
        };
        let known = format!("Bearer {}", writing::WRITER);
        if let Some(token) = &repo.token
            && token == writing::WRITER
            && request.authorization.as_deref() != Some(known.as_str())
        {
            return refused(401, "RepoNotFound", "Repository not found");
        }
        if let Some(token) = &repo.token
            && request.authorization.as_deref() != Some(&format!("Bearer {token}"))
        {
            return refused(401, "GatedRepo", "Access to model is restricted.");
        }
        let revision = asked.split('/').next().unwrap();
        if revision != "main" && revision != repo.commit && revision != "refs%2Fpr%2F1" {
            return refused(404, "RevisionNotFound", "Invalid rev id");
        }
        if is_listing {
            let siblings: Vec<String> = repo
                .files
                .keys()
                .map(|name| format!("{{\"rfilename\":{name:?}}}"))
                .collect();
            let text = format!(
                "{{\"id\":\"x\",\"sha\":\"{}\",\"gated\":false,\"private\":{},\"siblings\":[{}]}}",
                repo.commit,
                repo.token.is_some(),
                siblings.join(",")
            );
            return Reply {
                status: 200,
                headers: Vec::new(),
                body: text.into_bytes(),
            };
        }
        let Some(contents) = asked
            .split_once('/')
            .and_then(|(_, name)| repo.files.get(name))
        else {
            return refused(404, "EntryNotFound", "Entry not found");
        };
        let mut headers = vec![("X-Repo-Commit", repo.commit.clone())];
        let tag = etag(contents);
        if contents.len() < LARGE {
            headers.push(("ETag", format!("\"{tag}\"")));
            return part(contents, request, headers, ranges);
        }
        headers.push(("X-Linked-Etag", format!("\"{tag}\"")));
        headers.push(("X-Linked-Size", contents.len().to_string()));
        headers.push(("ETag", "\"of the redirect\"".into()));
        headers.push((
            "Location",
            format!("http://127.0.0.1:{storage_port}/store/{tag}?{SIGNATURE}"),
        ));
        return Reply {
            status: 302,
            headers,
            body: b"Found. Redirecting".to_vec(),
        };
    }
    refused(401, "RepoNotFound", "Repository not found")
}

fn part(
    contents: &[u8],
    request: &Request,
    mut headers: Vec<(&'static str, String)>,
    ranges: bool,
) -> Reply {
    let from = request.range.as_deref().filter(|_| ranges).map(|range| {
        let from = range
            .strip_prefix("bytes=")
            .unwrap()
            .strip_suffix('-')
            .unwrap();
        from.parse::<usize>().unwrap()
    });
    match from {
        Some(from) if from >= contents.len() => refused(416, "", ""),
        Some(from) => {
            let last = contents.len() - 1;
            headers.push((
                "Content-Range",
                format!("bytes {from}-{last}/{}", contents.len()),
            ));
            Reply {
                status: 206,
                headers,
                body: contents[from..].to_vec(),
            }
        }
        None => Reply {
            status: 200,
            headers,
            body: contents.to_vec(),
        },
    }
}
