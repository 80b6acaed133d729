//! Names on the Hub become folders in the cache, however the server behaves.
#![allow(clippy::unwrap_used)]

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use mtlora_hub::{Hub, HubConfig, HubError, Progress, RepoId};
use server::{COMMIT, Fault, LARGE, Server, etag};

const NAME: &str = "org/name";
const WEIGHTS: &str = "model.safetensors";

fn weights() -> Vec<u8> {
    (0..3 * LARGE).map(|n| (n * n / 7) as u8).collect()
}

/// The files that most models have on the Hub.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".gitattributes", b"x".to_vec()),
        ("README.md", b"# readme".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"t\":1}".to_vec()),
        ("tokenizer_config.json", b"{\"c\":1}".to_vec()),
        (WEIGHTS, weights()),
        ("pytorch_model.bin", b"pickle".to_vec()),
        ("onnx/model.onnx", b"onnx".to_vec()),
    ]
}

struct Setup {
    server: Server,
    cache: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let server = Server::start();
        server.model(NAME, files());
        Self {
            server,
            cache: tempfile::tempdir().unwrap(),
        }
    }

    fn config(&self) -> HubConfig {
        HubConfig::new(self.cache.path())
            .with_endpoint(&self.server.endpoint())
            .unwrap()
            .with_retry_wait(Duration::from_millis(2))
    }

    fn get(&self, name: &str) -> Result<PathBuf, HubError> {
        Hub::new(self.config()).model(&id(name), &mut ())
    }

    /// The requests that the server got, as "METHOD path".
    fn asked(&self) -> Vec<String> {
        let line = |request: &server::Request| format!("{} {}", request.method, request.path);
        self.server.requests().iter().map(line).collect()
    }

    fn blobs(&self) -> PathBuf {
        self.cache.path().join("models--org--name/blobs")
    }

    fn weights_blob(&self) -> PathBuf {
        self.blobs().join(etag(&weights()))
    }

    fn partial(&self) -> PathBuf {
        self.blobs()
            .join(format!("{}.incomplete", etag(&weights())))
    }
}

fn id(name: &str) -> RepoId {
    name.parse().unwrap()
}

/// The files below a folder, with their paths in it.
fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                found.push(
                    path.strip_prefix(folder)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_string(),
                )
            }
        }
    }
    found.sort();
    found
}

#[test]
fn needed_files_are_fetched_once_into_the_cache_that_python_uses() {
    let setup = Setup::new();
    let folder = setup.get(NAME).unwrap();
    let expected = setup
        .cache
        .path()
        .join(format!("models--org--name/snapshots/{COMMIT}"));
    assert_eq!(folder, expected);
    assert_eq!(
        tree(&folder),
        [
            "config.json",
            WEIGHTS,
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), weights());
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), b"{}");
    let refs = fs::read_to_string(setup.cache.path().join("models--org--name/refs/main")).unwrap();
    assert_eq!(refs, COMMIT);
    // The blobs are named by their hashes, and no part of one is left.
    let names: Vec<String> = tree(&setup.blobs());
    assert_eq!(names.len(), 4);
    assert!(names.contains(&etag(&weights())) && names.contains(&etag(b"{}")));
    assert_eq!(setup.asked().len(), 1 + 4 * 2 + 1);

    // The second time, one request asks which commit the revision is at.
    assert_eq!(setup.get(NAME).unwrap(), folder);
    assert_eq!(setup.asked(), ["GET /api/models/org/name/revision/main"]);
    assert_eq!(setup.get(&format!("{NAME}@{COMMIT}")).unwrap(), folder);
    assert_eq!(setup.get(&format!("{NAME}@refs/pr/1")).unwrap(), folder);
    setup.server.requests();

    // Offline, there are no requests.
    let offline = Hub::new(setup.config().with_offline(true));
    for name in [NAME, "org/name@refs/pr/1", &format!("{NAME}@{COMMIT}")] {
        assert_eq!(offline.model(&id(name), &mut ()).unwrap(), folder);
    }
    for name in ["org/other", "org/name@v2"] {
        let error = offline.model(&id(name), &mut ()).unwrap_err();
        assert!(matches!(error, HubError::Offline { .. }), "{error}");
        assert!(
            error.to_string().contains("HF_HUB_OFFLINE is set"),
            "{error}"
        );
    }
    fs::remove_file(folder.join(WEIGHTS)).unwrap();
    let error = offline.model(&id(NAME), &mut ()).unwrap_err().to_string();
    assert!(
        error.contains("model.safetensors is not in the cache"),
        "{error}"
    );
    assert_eq!(setup.server.requests().len(), 0);
}

#[test]
fn only_the_files_that_a_new_commit_changed_are_fetched() {
    let setup = Setup::new();
    let old = setup.get(NAME).unwrap();
    setup.server.change(NAME, |repo| {
        repo.commit = COMMIT.replace('0', "f");
        repo.files
            .insert("config.json".into(), b"{\"new\":1}".to_vec());
    });
    setup.server.requests();
    let new = setup.get(NAME).unwrap();
    assert_ne!(new, old);
    assert_eq!(fs::read(new.join("config.json")).unwrap(), b"{\"new\":1}");
    assert_eq!(fs::read(old.join("config.json")).unwrap(), b"{}");
    assert_eq!(fs::read(new.join(WEIGHTS)).unwrap(), weights());
    let contents = setup
        .asked()
        .iter()
        .filter(|line| line.starts_with("GET") && !line.contains("/api/"))
        .count();
    assert_eq!(contents, 1);
}

#[test]
fn an_interrupted_download_resumes_where_it_stopped() {
    let setup = Setup::new();
    setup.server.fault("/store/", Fault::Cut(10_000), 2);
    let folder = setup.get(NAME).unwrap();
    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), weights());
    let ranges: Vec<Option<String>> = setup
        .server
        .requests()
        .into_iter()
        .filter(|request| request.storage)
        .map(|request| request.range)
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=10000-".into()),
            Some("bytes=20000-".into())
        ]
    );

    // A process that dies leaves what has arrived, and the next one resumes there.
    let setup = Setup::new();
    setup.server.fault("/store/", Fault::Cut(15_000), 1);
    setup.server.fault("/store/", Fault::HangUp, 100);
    let error = setup.get(NAME).unwrap_err();
    assert!(
        matches!(error, HubError::Unreachable { attempts: 5, .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("the transfer continues where it stopped"),
        "{error}"
    );
    assert_eq!(fs::read(setup.partial()).unwrap(), weights()[..15_000]);
    assert!(!setup.weights_blob().exists());
    // The cache has no revision that lacks its weights.
    let offline = Hub::new(setup.config().with_offline(true));
    assert!(offline.model(&id(NAME), &mut ()).is_err());
    let Setup { cache, .. } = setup;
    let setup = Setup {
        server: Server::start(),
        cache,
    };
    setup.server.model(NAME, files());
    let folder = setup.get(NAME).unwrap();
    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), weights());
    let stored = setup
        .server
        .requests()
        .into_iter()
        .find(|request| request.storage)
        .unwrap();
    assert_eq!(stored.range.as_deref(), Some("bytes=15000-"));
    assert!(!setup.partial().exists());
}

#[test]
fn a_server_without_ranges_is_read_from_the_beginning() {
    let setup = Setup::new();
    setup.server.fault("/store/", Fault::Cut(10_000), 1);
    setup.server.fault("/store/", Fault::NoRanges, 1);
    let folder = setup.get(NAME).unwrap();
    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), weights());
}

#[test]
fn a_wrong_hash_is_refused_and_leaves_nothing() {
    for (text, file, contents) in [
        ("/store/", WEIGHTS, weights()),
        ("GET /org/name/resolve", "config.json", b"{}".to_vec()),
    ] {
        let setup = Setup::new();
        setup.server.fault(text, Fault::Corrupt, 1);
        let error = setup.get(NAME).unwrap_err();
        assert!(matches!(error, HubError::Damaged { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(file) && text.contains(&etag(&contents)),
            "{text}"
        );
        assert!(
            !tree(setup.cache.path())
                .iter()
                .any(|path| path.contains(&etag(&contents)) && !path.ends_with(".lock"))
        );
        setup.get(NAME).unwrap();
    }
}

#[test]
fn a_damaged_partial_download_is_fetched_again() {
    for partial in [vec![7; 100], vec![7; 3 * LARGE], vec![7; 4 * LARGE]] {
        let setup = Setup::new();
        fs::create_dir_all(setup.blobs()).unwrap();
        fs::write(setup.partial(), partial).unwrap();
        let folder = setup.get(NAME).unwrap();
        assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), weights());
    }
}

#[test]
fn more_bytes_than_announced_are_refused() {
    let setup = Setup::new();
    setup.server.fault("/store/", Fault::TooLong, 1);
    let error = setup.get(NAME).unwrap_err().to_string();
    assert!(
        error.contains("more bytes came than the 60000 announced"),
        "{error}"
    );
    assert!(!setup.weights_blob().exists());
    assert_eq!(
        setup
            .get(NAME)
            .unwrap()
            .join(WEIGHTS)
            .metadata()
            .unwrap()
            .len(),
        60_000
    );
}

#[test]
fn temporary_failures_are_retried() {
    for fault in [
        Fault::Status(500, vec![]),
        Fault::Status(503, vec![]),
        Fault::Status(429, vec![("Retry-After", "0".into())]),
        Fault::HangUp,
    ] {
        for text in ["/api/", "HEAD", "/store/"] {
            let setup = Setup::new();
            setup.server.fault(text, fault.clone(), 1);
            let folder = setup.get(NAME).unwrap();
            assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), weights());
        }
    }
}

#[test]
fn a_wait_is_reported_with_its_reason() {
    static TOLD: Mutex<Vec<(String, u64)>> = Mutex::new(Vec::new());
    let setup = Setup::new();
    let later = vec![("Retry-After", "1".into())];
    setup.server.fault("HEAD", Fault::Status(429, later), 1);
    let config = setup.config().with_on_retry(|wait| {
        let told = (wait.reason.to_string(), wait.time.as_secs());
        TOLD.lock().unwrap().push(told);
    });
    let hub = Hub::new(config);
    hub.model(&NAME.parse().unwrap(), &mut ()).unwrap();
    assert_eq!(
        *TOLD.lock().unwrap(),
        [("status 429 Too Many Requests".to_string(), 1)]
    );
}

#[test]
fn the_cache_is_used_when_the_hub_does_not_answer() {
    let setup = Setup::new();
    let folder = setup.get(NAME).unwrap();
    struct Notes(Vec<String>);
    impl Progress for Notes {
        fn note(&mut self, text: &str) {
            self.0.push(text.to_string());
        }
    }
    let nobody = HubConfig::new(setup.cache.path())
        .with_endpoint("http://127.0.0.1:9")
        .unwrap()
        .with_retry_wait(Duration::from_millis(2));
    let mut notes = Notes(Vec::new());
    let hub = Hub::new(nobody);
    assert_eq!(hub.model(&id(NAME), &mut notes).unwrap(), folder);
    assert_eq!(notes.0.len(), 1);
    assert!(notes.0[0].contains("does not answer"), "{}", notes.0[0]);
    let error = hub
        .model(&id("org/other"), &mut ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot reach http://127.0.0.1:9/api/models/org/other"),
        "{error}"
    );
}

#[test]
fn refusals_say_what_to_do() {
    let setup = Setup::new();
    let text = |name: &str| setup.get(name).unwrap_err().to_string();
    let error = text("org/nothing");
    assert!(
        error.contains("model org/nothing") && error.contains("no such model"),
        "{error}"
    );
    assert!(error.contains("set HF_TOKEN"), "{error}");
    let error = text("org/name@v9");
    assert!(
        error.contains("revision `v9`") && error.contains("no such revision"),
        "{error}"
    );
    setup
        .server
        .change(NAME, |repo| repo.token = Some("hf_good".into()));
    let error = text(NAME);
    assert!(
        error.contains("gated") && error.contains("set HF_TOKEN"),
        "{error}"
    );
    let hub = |token: &str| Hub::new(setup.config().with_token(token).unwrap());
    let error = hub("hf_bad")
        .model(&id(NAME), &mut ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("accept its conditions") && !error.contains("hf_bad"),
        "{error}"
    );
    hub("hf_good").model(&id(NAME), &mut ()).unwrap();
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let setup = Setup::new();
    setup.server.rename("/org/old", "/org/name");
    let hub = Hub::new(setup.config().with_token("hf_secret").unwrap());
    let folder = hub.model(&id("org/old"), &mut ()).unwrap();
    assert!(folder.to_str().unwrap().contains("models--org--old"));
    let requests = setup.server.requests();
    let (storage, own): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.storage);
    assert!(!storage.is_empty() && own.len() > 4);
    assert!(
        storage
            .iter()
            .all(|request| request.authorization.is_none())
    );
    let bearer =
        |request: &&server::Request| request.authorization.as_deref() == Some("Bearer hf_secret");
    assert!(own.iter().all(bearer));

    // No message shows the token or the signature of a stored file's address.
    setup.server.fault("/store/", Fault::Status(403, vec![]), 1);
    let error = hub.model(&id(NAME), &mut ()).unwrap_err();
    for text in [error.to_string(), format!("{error:?}"), format!("{hub:?}")] {
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn repositories_without_the_right_files_are_refused_before_any_weights() {
    let cases: [(Vec<&str>, &str); 4] = [
        (vec!["tokenizer.json", WEIGHTS], "it has no config.json"),
        (
            vec!["config.json", "vocab.json", WEIGHTS],
            "it has no tokenizer.json, but `vocab.json`",
        ),
        (
            vec!["config.json", "tokenizer.json", "tf_model.h5"],
            "it has no model.safetensors, but `tf_model.h5`",
        ),
        (
            vec!["adapter_config.json", WEIGHTS],
            "it has no config.json, but `adapter_config.json`",
        ),
    ];
    for (names, expected) in cases {
        let setup = Setup::new();
        setup
            .server
            .model("org/odd", names.into_iter().map(|name| (name, weights())));
        let error = setup.get("org/odd").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!setup.asked().iter().any(|line| line.contains(WEIGHTS)));
    }
}

#[test]
fn weights_in_parts_are_all_fetched() {
    let setup = Setup::new();
    let index = r#"{"metadata":{},"weight_map":{"a":"model-1.safetensors","b":"sub/model-2.safetensors","c":"model-1.safetensors"}}"#;
    setup.server.model(
        "org/parts",
        [
            ("config.json", b"{}".to_vec()),
            ("tokenizer.json", b"{}".to_vec()),
            ("model.safetensors.index.json", index.as_bytes().to_vec()),
            ("model-1.safetensors", weights()),
            ("sub/model-2.safetensors", b"two".to_vec()),
            ("model-3.safetensors", b"three".to_vec()),
        ],
    );
    let folder = setup.get("org/parts").unwrap();
    assert_eq!(
        fs::read(folder.join("model-1.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(
        fs::read(folder.join("sub/model-2.safetensors")).unwrap(),
        b"two"
    );
    assert!(!folder.join("model-3.safetensors").exists());
}

#[test]
fn a_pickle_is_fetched_where_there_are_no_safetensors() {
    let setup = Setup::new();
    setup.server.change(NAME, |repo| {
        repo.files.remove(WEIGHTS);
    });
    let folder = setup.get(NAME).unwrap();
    assert!(folder.join("pytorch_model.bin").exists());
    let setup = Setup::new();
    setup.server.change(NAME, |repo| {
        repo.files.remove(WEIGHTS);
        let pickle = repo.files.remove("pytorch_model.bin").unwrap();
        repo.files.insert("pytorch_model-1-of-1.bin".into(), pickle);
        let index = r#"{"weight_map":{"a":"pytorch_model-1-of-1.bin"}}"#;
        repo.files
            .insert("pytorch_model.bin.index.json".into(), index.into());
    });
    let folder = setup.get(NAME).unwrap();
    assert!(folder.join("pytorch_model-1-of-1.bin").exists());
}

#[test]
fn a_list_of_parts_cannot_name_files_elsewhere() {
    for part in [
        "../../../../evil.safetensors",
        "/tmp/evil.safetensors",
        "a/../../evil.safetensors",
        "..\\\\evil.safetensors",
        "C:\\\\evil.safetensors",
        "C:evil.safetensors",
        "\\\\\\\\host\\\\share\\\\evil.safetensors",
        "nul.safetensors",
        "",
        "pytorch_model.bin",
    ] {
        let setup = Setup::new();
        let index = format!(r#"{{"weight_map":{{"a":"{part}"}}}}"#);
        setup.server.change(NAME, |repo| {
            repo.files.remove(WEIGHTS);
            repo.files
                .insert("model.safetensors.index.json".into(), index.into_bytes());
            repo.files
                .insert(part.replace("\\\\", "\\"), b"evil".to_vec());
        });
        let error = setup.get(NAME).unwrap_err();
        let unsafe_name = matches!(error, HubError::UnsafeName { .. });
        assert!(
            unsafe_name || part == "pytorch_model.bin",
            "{part}: {error}"
        );
        assert!(
            !tree(setup.cache.path())
                .iter()
                .any(|path| path.contains("evil")),
            "{part}"
        );
        assert!(
            !setup.asked().iter().any(|line| line.contains("evil")),
            "{part}"
        );
    }
}

#[test]
fn a_servers_answers_cannot_lead_out_of_the_cache() {
    let bad = |text: &'static str, headers: Vec<(&'static str, String)>| {
        let setup = Setup::new();
        setup.server.fault(text, Fault::Headers(headers), 1);
        let error = setup.get(NAME).unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{error}");
    };
    for etag in [
        "../../../../evil",
        "/tmp/evil",
        "..\\evil",
        "",
        "W/\"x\"",
        "\"a-2\"",
    ] {
        bad("HEAD /org/name/resolve", vec![("ETag", etag.into())]);
    }
    for commit in ["../../evil", "/tmp/evil", "main", "", &COMMIT[1..]] {
        let setup = Setup::new();
        setup
            .server
            .change(NAME, |repo| repo.commit = commit.to_string());
        let error = setup.get(NAME).unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{error}");
        assert!(tree(setup.cache.path()).is_empty());
    }
}

#[test]
fn unusable_and_endless_redirects_are_refused() {
    let location = |to: &str| Fault::Status(302, vec![("Location", to.to_string())]);
    for (fault, expected) in [
        (
            location("file:///etc/passwd"),
            "redirects without an address that can be followed",
        ),
        (
            Fault::Status(302, vec![]),
            "redirects without an address that can be followed",
        ),
    ] {
        let setup = Setup::new();
        setup.server.fault("/api/", fault, 1);
        let error = setup.get(NAME).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let setup = Setup::new();
    setup.server.fault(
        "/api/",
        location("/api/models/org/name/revision/main"),
        1000,
    );
    let error = setup.get(NAME).unwrap_err().to_string();
    assert!(error.contains("redirects more than 10 times"), "{error}");
}

#[test]
fn broken_file_lists_are_refused() {
    let setup = Setup::new();
    setup.server.fault("/api/", Fault::Corrupt, 1);
    for _ in 0..2 {
        // The changed byte is in a name, or it breaks the list; either way, nothing panics.
        let _ = setup.get(NAME);
    }
    let setup = Setup::new();
    setup.server.fault("/api/", Fault::Status(200, vec![]), 1);
    let error = setup.get(NAME).unwrap_err();
    assert!(matches!(error, HubError::Protocol { .. }), "{error}");
}

#[test]
fn requests_at_the_same_time_fetch_once() {
    let setup = Setup::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| setup.get(NAME).unwrap()))
            .collect();
        for thread in threads {
            let folder = thread.join().unwrap();
            assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), weights());
        }
    });
    let stored = setup
        .server
        .requests()
        .into_iter()
        .filter(|request| request.storage)
        .count();
    assert_eq!(stored, 1);
}

#[test]
fn only_the_two_files_of_an_adapter_are_fetched() {
    let setup = Setup::new();
    setup.server.model(
        "user/lora",
        [
            ("adapter_config.json", b"{}".to_vec()),
            ("adapter_model.safetensors", weights()),
            ("tokenizer.json", b"{}".to_vec()),
        ],
    );
    let hub = Hub::new(setup.config());
    let folder = hub.adapter(&id("user/lora"), &mut ()).unwrap();
    assert_eq!(
        tree(&folder),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    let error = hub.adapter(&id(NAME), &mut ()).unwrap_err().to_string();
    assert!(
        error.contains("it has no adapter_config.json, but `config.json`"),
        "{error}"
    );
}

#[test]
fn an_adapters_pickle_is_fetched_only_where_there_are_no_safetensors() {
    let setup = Setup::new();
    let config = || ("adapter_config.json", b"{}".to_vec());
    let pickle = || ("adapter_model.bin", weights());
    let safetensors = ("adapter_model.safetensors", weights());
    setup.server.model("user/old", [config(), pickle()]);
    setup
        .server
        .model("user/both", [config(), pickle(), safetensors]);
    setup.server.model("user/none", [config()]);
    let hub = Hub::new(setup.config());
    let folder = hub.adapter(&id("user/old"), &mut ()).unwrap();
    assert_eq!(tree(&folder), ["adapter_config.json", "adapter_model.bin"]);
    assert_eq!(
        fs::read(folder.join("adapter_model.bin")).unwrap(),
        weights()
    );
    let offline = Hub::new(setup.config().with_offline(true));
    setup.server.requests();
    assert_eq!(offline.adapter(&id("user/old"), &mut ()).unwrap(), folder);
    assert!(setup.server.requests().is_empty());

    let folder = hub.adapter(&id("user/both"), &mut ()).unwrap();
    assert_eq!(
        tree(&folder),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    let error = hub.adapter(&id("user/none"), &mut ()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("it has no adapter_model.safetensors"),
        "{error}"
    );
}

#[test]
fn only_the_wanted_files_of_a_data_set_are_fetched() {
    let setup = Setup::new();
    setup.server.dataset(
        "org/data",
        [
            ("a/train-0.parquet", "1"),
            ("a/test-0.parquet", "2"),
            ("b/train-0.parquet", "3"),
        ],
    );
    let wanted = |file: &str| file.starts_with("a/train");
    let fetch = |offline: bool, folder: &str| {
        Hub::new(setup.config().with_offline(offline)).dataset(
            &id("org/data"),
            folder,
            &wanted,
            &mut (),
        )
    };
    let folder = fetch(false, "a").unwrap();
    assert_eq!(tree(&folder), ["a/train-0.parquet"]);
    assert!(folder.to_str().unwrap().contains("datasets--org--data"));
    assert_eq!(fetch(true, "a").unwrap(), folder);
    assert!(fetch(false, "c").is_err());
    assert!(fetch(true, "c").is_err());
}

#[test]
fn progress_counts_bytes() {
    struct Counted(Vec<(String, u64, Option<u64>)>, u64, usize);
    impl Progress for Counted {
        fn started(&mut self, file: &str, done: u64, total: Option<u64>) {
            self.0.push((file.to_string(), done, total));
        }
        fn advanced(&mut self, done: u64) {
            self.1 = done;
        }
        fn finished(&mut self) {
            self.2 += 1;
        }
    }
    let setup = Setup::new();
    setup.server.fault("/store/", Fault::Cut(10_000), 1);
    let mut counted = Counted(Vec::new(), 0, 0);
    Hub::new(setup.config())
        .model(&id(NAME), &mut counted)
        .unwrap();
    let weights: Vec<_> = counted
        .0
        .iter()
        .filter(|(file, _, _)| file == WEIGHTS)
        .collect();
    assert_eq!(weights.len(), 2);
    assert_eq!((weights[0].1, weights[0].2), (0, Some(60_000)));
    assert_eq!(weights[1].1, 10_000);
    assert_eq!((counted.1, counted.2), (60_000, 4));
}
