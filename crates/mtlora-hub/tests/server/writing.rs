//! What the test Hub does when somebody writes: it creates repositories, says how files are to be sent, stores large ones
//! whole or in parts, and takes commits.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha1::Digest;

use super::{LARGE, Reply, Repo, Request, SIGNATURE, State, etag, hex};

/// The size of the parts in which the storage wants larger files, in bytes.
pub const PART: usize = 50_000;
/// The token that may write in `OWNER`.
pub const WRITER: &str = "hf_writer";
pub const OWNER: &str = "org";
/// The commit of a new repository.
pub const FIRST_COMMIT: &str = "f000000000000000000000000000000000000000";

/// What has been stored.
#[derive(Default)]
pub struct Stored {
    /// Whole files by their SHA-256.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Parts by the file's SHA-256 and their number.
    parts: BTreeMap<(String, u64), Vec<u8>>,
    /// How many commits there were.
    commits: usize,
}

fn told(status: u16, body: Value) -> Reply {
    Reply {
        status,
        headers: vec![("Content-Type", "application/json".into())],
        body: body.to_string().into_bytes(),
    }
}

fn wrong(status: u16, message: &str) -> Reply {
    told(status, json!({ "error": message }))
}

/// What a PUT or a POST does.
pub fn reply(state: &mut State, request: &Request, ports: (u16, u16)) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if request.storage {
        assert_eq!(request.authorization, None, "the token went to the storage");
        if query != SIGNATURE {
            return wrong(403, "no signature");
        }
        return store(state, path, &request.body);
    }
    // Its address is signed: Python's client sends no token there.
    if path == "/api/complete" {
        return complete(state, &request.json());
    }
    match request.authorization.as_deref() {
        Some(token) if token == format!("Bearer {WRITER}") => {}
        Some(token) if token.ends_with("reader") => {
            return wrong(
                403,
                "You don't have the rights to create a model under the namespace \"org\"",
            );
        }
        _ => return wrong(401, "Invalid username or password."),
    }
    // Python's client asks this about a card.
    if path == "/api/validate-yaml" {
        return told(200, json!({ "errors": [], "warnings": [] }));
    }
    if path == "/api/repos/create" {
        return create(state, &request.json(), ports.0);
    }
    for at in 0..state.repos.len() {
        let name = state.repos[at].name.clone();
        let lfs = format!("/{name}.git/info/lfs/objects/");
        if let Some(what) = path.strip_prefix(&lfs) {
            let is_lfs = request.content_type.as_deref() == Some("application/vnd.git-lfs+json");
            assert!(is_lfs || what == "verify");
            let body = request.json();
            return match what {
                "batch" => batch(state, &name, &body, ports),
                "verify" => match state.stored.objects.get(body["oid"].as_str().unwrap()) {
                    Some(found) if json!(found.len()) == body["size"] => told(200, json!({})),
                    _ => told(404, json!({ "message": "no such object" })),
                },
                other => panic!("{other}"),
            };
        }
        let api = format!("/api/models/{name}/");
        match path.strip_prefix(&api) {
            Some("preupload/main") => return preupload(&state.repos[at], &request.json()),
            Some("commit/main") => {
                assert_eq!(
                    request.content_type.as_deref(),
                    Some("application/x-ndjson")
                );
                return commit(state, at, &request.body, ports.0);
            }
            _ => {}
        }
    }
    wrong(404, "not found")
}

fn create(state: &mut State, body: &Value, hub: u16) -> Reply {
    let [owner, name] = ["organization", "name"].map(|field| body[field].as_str().unwrap());
    assert!(body["type"].is_null() || body["type"] == "model");
    // Clients of different ages say it differently.
    let is_private = body["private"] == true || body["visibility"] == "private";
    if owner != OWNER {
        let message =
            format!("You don't have the rights to create a model under the namespace \"{owner}\"");
        return wrong(403, &message);
    }
    let name = format!("{owner}/{name}");
    if state.repos.iter().any(|repo| repo.name == name) {
        return wrong(409, "You already created this model repo");
    }
    state.repos.push(Repo {
        kind: "models",
        name: name.clone(),
        commit: FIRST_COMMIT.to_string(),
        files: BTreeMap::from([(".gitattributes".to_string(), b"*.bin filter=lfs".to_vec())]),
        token: is_private.then(|| WRITER.to_string()),
        ignored: None,
    });
    told(
        200,
        json!({ "url": format!("http://127.0.0.1:{hub}/{name}") }),
    )
}

fn preupload(repo: &Repo, body: &Value) -> Reply {
    let files = body["files"].as_array().unwrap();
    let files: Vec<Value> = files
        .iter()
        .map(|file| {
            let path = file["path"].as_str().unwrap();
            let size = file["size"].as_u64().unwrap() as usize;
            let sample = BASE64.decode(file["sample"].as_str().unwrap()).unwrap();
            assert_eq!(sample.len(), size.min(512));
            json!({
                "path": path,
                "uploadMode": if size < LARGE { "regular" } else { "lfs" },
                "shouldIgnore": repo.ignored.as_deref() == Some(path),
                "oid": repo.files.get(path).map(|contents| etag(contents)),
            })
        })
        .collect();
    told(200, json!({ "files": files }))
}

fn batch(state: &State, name: &str, body: &Value, (hub, storage): (u16, u16)) -> Reply {
    assert_eq!(body["operation"], "upload");
    assert_eq!(body["hash_algo"], "sha256");
    let objects: Vec<Value> = body["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| {
            let oid = object["oid"].as_str().unwrap();
            let size = object["size"].as_u64().unwrap() as usize;
            if state.stored.objects.contains_key(oid) {
                return json!({ "oid": oid, "size": size });
            }
            let at = |path: &str| format!("http://127.0.0.1:{storage}/{path}?{SIGNATURE}");
            let upload = if size <= PART {
                json!({ "href": at(&format!("put/{oid}")), "header": { "x-kind": "whole" } })
            } else {
                let mut header = json!({ "chunk_size": PART.to_string() });
                for part in 1..=size.div_ceil(PART) {
                    header[format!("{part:05}")] = at(&format!("part/{oid}/{part}")).into();
                }
                json!({ "href": format!("http://127.0.0.1:{hub}/api/complete?uploadId=7"), "header": header })
            };
            let verify = format!("http://127.0.0.1:{hub}/{name}.git/info/lfs/objects/verify");
            json!({ "oid": oid, "size": size, "authenticated": true,
                    "actions": { "upload": upload, "verify": { "href": verify } } })
        })
        .collect();
    told(200, json!({ "transfer": "multipart", "objects": objects }))
}

fn store(state: &mut State, path: &str, body: &[u8]) -> Reply {
    let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match words[..] {
        ["put", oid] => {
            if hex(sha2::Sha256::digest(body)) != oid {
                return wrong(400, "BadDigest");
            }
            state.stored.objects.insert(oid.to_string(), body.to_vec());
            told(200, json!({}))
        }
        ["part", oid, part] => {
            let part: u64 = part.parse().unwrap();
            let key = (oid.to_string(), part);
            state.stored.parts.insert(key, body.to_vec());
            Reply {
                status: 200,
                headers: vec![("ETag", format!("\"etag-{part}\""))],
                body: Vec::new(),
            }
        }
        _ => wrong(404, "no such place"),
    }
}

fn complete(state: &mut State, body: &Value) -> Reply {
    let oid = body["oid"].as_str().unwrap();
    let mut whole = Vec::new();
    for (at, part) in body["parts"].as_array().unwrap().iter().enumerate() {
        let number = part["partNumber"].as_u64().unwrap();
        assert_eq!(number, at as u64 + 1);
        assert_eq!(part["etag"], format!("\"etag-{number}\""));
        whole.extend(&state.stored.parts[&(oid.to_string(), number)]);
    }
    if hex(sha2::Sha256::digest(&whole)) != oid {
        return wrong(400, "BadDigest");
    }
    state.stored.objects.insert(oid.to_string(), whole);
    told(200, json!({}))
}

fn commit(state: &mut State, at: usize, body: &[u8], hub: u16) -> Reply {
    let text = std::str::from_utf8(body).unwrap();
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    assert_eq!(header["key"], "header");
    assert!(!header["value"]["summary"].as_str().unwrap().is_empty());
    let mut files = state.repos[at].files.clone();
    if let Some(parent) = header["value"]["parentCommit"].as_str()
        && parent != state.repos[at].commit
    {
        return wrong(
            412,
            "A commit has happened since. Please refresh and try again.",
        );
    }
    for line in lines {
        let value = &line["value"];
        let path = value["path"].as_str().unwrap().to_string();
        let contents = match line["key"].as_str().unwrap() {
            "file" => {
                assert_eq!(value["encoding"], "base64");
                BASE64.decode(value["content"].as_str().unwrap()).unwrap()
            }
            "lfsFile" => match state.stored.objects.get(value["oid"].as_str().unwrap()) {
                Some(found) if json!(found.len()) == value["size"] => found.clone(),
                _ => return wrong(400, "the LFS object was not sent"),
            },
            other => panic!("{other}"),
        };
        files.insert(path, contents);
    }
    state.stored.commits += 1;
    let commit = format!("{:040x}", 0xc0_0000 + state.stored.commits);
    let repo = &mut state.repos[at];
    repo.files = files;
    repo.commit = commit.clone();
    let url = format!("http://127.0.0.1:{hub}/{}/commit/{commit}", repo.name);
    told(
        200,
        json!({ "success": true, "commitOid": commit, "commitUrl": url }),
    )
}
