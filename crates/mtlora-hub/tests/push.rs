//! A folder's files get to the Hub, whatever breaks off, and nothing else does.
#![allow(clippy::unwrap_used)]

mod server;

use std::fs;
use std::time::Duration;

use mtlora_hub::{Hub, HubConfig, HubError, Progress, PushOptions, Pushed, RepoId, Upload};
use server::writing::{FIRST_COMMIT, PART, WRITER};
use server::{Fault, LARGE, Request, Server, etag};

const NAME: &str = "org/adapter";
const WEIGHTS: &str = "adapter_model.safetensors";
const CREATE: &str = "POST /api/repos/create";
const COMMIT: &str = "POST /api/models/org/adapter/commit/main";

/// Contents that take three requests to store.
fn weights() -> Vec<u8> {
    (0..2 * PART + 17).map(|n| (n * n / 7) as u8).collect()
}

struct Setup {
    server: Server,
    folder: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let setup = Self {
            server: Server::start(),
            folder: tempfile::tempdir().unwrap(),
        };
        setup.write("README.md", b"# card");
        setup.write("adapter_config.json", b"{}");
        setup.write(WEIGHTS, &weights());
        setup.write("empty.txt", b"");
        setup.write("middle.bin", &vec![3; LARGE + 1]);
        setup
    }

    fn write(&self, name: &str, contents: &[u8]) {
        fs::write(self.folder.path().join(name), contents).unwrap();
    }

    fn hub(&self, token: Option<&str>) -> Hub {
        let config = HubConfig::new(self.folder.path().join("no/cache"))
            .with_endpoint(&self.server.endpoint())
            .unwrap()
            .with_retry_wait(Duration::from_millis(2));
        Hub::new(match token {
            Some(token) => config.with_token(token).unwrap(),
            None => config,
        })
    }

    fn upload(&self) -> Upload {
        Upload::of_folder(self.folder.path()).unwrap()
    }

    fn push_with(&self, change: impl FnOnce(&mut PushOptions)) -> Result<Pushed, HubError> {
        let mut options = PushOptions {
            private: false,
            overwrite: false,
            message: "Add the adapter".to_string(),
        };
        change(&mut options);
        let hub = self.hub(Some(WRITER));
        hub.push(&id(NAME), &self.upload(), &options, &mut ())
    }

    fn push(&self) -> Result<Pushed, HubError> {
        self.push_with(|_| ())
    }

    fn fault(&self, text: &str, fault: Fault, times: usize) {
        self.server.fault(text, fault, times);
    }

    /// The requests since the last call, as "METHOD path".
    fn asked(&self) -> Vec<String> {
        let line = |request: &Request| format!("{} {}", request.method, request.path);
        self.server.requests().iter().map(line).collect()
    }

    /// The repository must have all files.
    fn check(&self) {
        for file in self.upload().files() {
            let here = fs::read(self.folder.path().join(file.name())).unwrap();
            let there = self.server.file(NAME, file.name());
            assert!(there.as_ref() == Some(&here), "{}", file.name());
        }
    }
}

fn id(name: &str) -> RepoId {
    name.parse().unwrap()
}

fn count(asked: &[String], part: &str) -> usize {
    asked.iter().filter(|line| line.contains(part)).count()
}

/// Writes down what is reported.
#[derive(Default)]
struct Log {
    files: Vec<String>,
    most: u64,
    notes: Vec<String>,
}

impl Progress for Log {
    fn started(&mut self, file: &str, _: u64, total: Option<u64>) {
        self.files.push(format!("{file} {}", total.unwrap()));
    }

    fn advanced(&mut self, done: u64) {
        self.most = self.most.max(done);
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_string());
    }
}

#[test]
fn a_folder_becomes_a_new_repository_with_one_commit() {
    let setup = Setup::new();
    let options = PushOptions {
        private: true,
        overwrite: false,
        message: "Add the adapter".to_string(),
    };
    let mut log = Log::default();
    let hub = setup.hub(Some(WRITER));
    let pushed = hub
        .push(&id(NAME), &setup.upload(), &options, &mut log)
        .unwrap();
    assert_eq!(pushed.url, format!("{}/{NAME}", setup.server.endpoint()));
    assert!(pushed.commit.is_some() && pushed.kept.is_empty());
    let all = [
        "README.md",
        "adapter_config.json",
        WEIGHTS,
        "empty.txt",
        "middle.bin",
    ];
    assert_eq!(pushed.sent, all);
    setup.check();
    assert!(setup.server.file(NAME, ".gitattributes").is_some());
    let size = weights().len();
    assert_eq!(
        log.files,
        [
            format!("{WEIGHTS} {size}"),
            format!("middle.bin {}", LARGE + 1)
        ]
    );
    assert_eq!(log.most, size as u64);

    let requests = setup.server.requests();
    let created = requests
        .iter()
        .find(|request| request.path.ends_with("/create"))
        .unwrap();
    assert_eq!(created.json()["private"], true);
    // The storage sees neither the token nor anything but the two large files.
    let stored: Vec<&Request> = requests.iter().filter(|request| request.storage).collect();
    assert_eq!(stored.len(), 3 + 1);
    assert!(stored.iter().all(|request| request.authorization.is_none()));
    assert!(
        requests
            .iter()
            .all(|request| request.storage || request.authorization.is_some())
    );
    let sent: usize = stored.iter().map(|request| request.body.len()).sum();
    assert_eq!(sent, size + LARGE + 1);
    let asked: Vec<String> = requests.iter().map(|one| one.path.clone()).collect();
    assert_eq!(count(&asked, "/verify"), 2);
    assert_eq!(count(&asked, "/commit/"), 1);

    // The second time there is nothing to send, and no commit.
    let again = setup.push().unwrap();
    assert_eq!((again.commit, again.kept.len()), (None, all.len()));
    let asked = setup.asked();
    assert_eq!(
        asked,
        [
            "GET /api/models/org/adapter/revision/main",
            "POST /api/models/org/adapter/preupload/main"
        ]
    );
    // The files can be downloaded again by who may.
    let home = tempfile::tempdir().unwrap();
    let config = HubConfig::new(home.path()).with_endpoint(&setup.server.endpoint());
    let reader = Hub::new(config.unwrap().with_token(WRITER).unwrap());
    let folder = reader.adapter(&id(NAME), &mut ()).unwrap();
    assert!(fs::read(folder.join(WEIGHTS)).unwrap() == weights());
    let error = setup.hub(None).adapter(&id(NAME), &mut ()).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
}

#[test]
fn what_broke_off_is_continued() {
    // A part of a file is cut, then an answer is lost, then the storage is in trouble.
    let setup = Setup::new();
    let part = format!("/part/{}/2", etag(&weights()));
    setup.fault(&part, Fault::CutRequest(1000), 2);
    setup.fault(&part, Fault::HangUp, 1);
    setup.fault(&part, Fault::Status(503, vec![]), 1);
    setup.push().unwrap();
    setup.check();
    let asked = setup.asked();
    // Only this part was sent more than once.
    assert_eq!(count(&asked, &part), 5);
    assert_eq!(count(&asked, "/part/"), 5 + 2);

    // The push ends while the second of the large files is sent, and another one sends only that.
    let setup = Setup::new();
    let middle = format!("PUT /put/{}", etag(&vec![3; LARGE + 1]));
    setup.fault(&middle, Fault::CutRequest(1000), 5);
    let error = setup.push().unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("the transfer continues where it stopped"),
        "{text}"
    );
    assert!(!text.contains("Signature"), "{text}");
    assert!(setup.server.file(NAME, WEIGHTS).is_none());
    assert_eq!(count(&setup.asked(), "/part/"), 3);
    let pushed = setup.push().unwrap();
    assert_eq!(pushed.kept, [WEIGHTS]);
    assert!(pushed.commit.is_some());
    setup.check();
    let asked = setup.asked();
    assert_eq!(count(&asked, "/part/"), 0);
    assert_eq!(count(&asked, &middle), 1);
    assert_eq!(count(&asked, CREATE), 0);
}

#[test]
fn a_lost_answer_does_not_repeat_what_was_done() {
    let setup = Setup::new();
    setup.fault(CREATE, Fault::HangUp, 1);
    setup.fault(COMMIT, Fault::HangUp, 1);
    setup.fault("/preupload/", Fault::HangUp, 1);
    setup.fault("/batch", Fault::HangUp, 1);
    setup.fault("/verify", Fault::CutRequest(10), 1);
    setup.fault("/api/complete", Fault::Status(502, vec![]), 1);
    let pushed = setup.push().unwrap();
    setup.check();
    let asked = setup.asked();
    assert_eq!((count(&asked, CREATE), count(&asked, COMMIT)), (2, 1));
    assert!(pushed.commit.is_some_and(|commit| commit != FIRST_COMMIT));

    // The Hub has no time for two new repositories of a user at once.
    let setup = Setup::new();
    let busy = "{\"error\":\"Cannot create repo: another conflicting operation is in progress\"}";
    setup.fault(CREATE, Fault::Answer(409, busy.to_string()), 2);
    setup.push().unwrap();
    assert_eq!(count(&setup.asked(), CREATE), 3);
}

/// An address of the storage is signed for a while only.
#[test]
fn a_signature_that_is_too_old_is_renewed() {
    let setup = Setup::new();
    setup.fault("/part/", Fault::Status(403, vec![]), 1);
    setup.push().unwrap();
    setup.check();
    let asked = setup.asked();
    assert_eq!((count(&asked, "/part/"), count(&asked, "/batch")), (4, 3));
    let setup = Setup::new();
    setup.fault("/part/", Fault::Status(403, vec![]), 9);
    let text = setup.push().unwrap_err().to_string();
    assert!(
        text.contains("status 403") && !text.contains("Signature"),
        "{text}"
    );
    assert_eq!(count(&setup.asked(), "/part/"), 3);
}

#[test]
fn who_may_not_write_is_told_so_and_sends_nothing() {
    let setup = Setup::new();
    let options = PushOptions {
        private: false,
        overwrite: false,
        message: "x".to_string(),
    };
    let push = |token: Option<&str>, name: &str| {
        let hub = setup.hub(token);
        hub.push(&id(name), &setup.upload(), &options, &mut ())
            .unwrap_err()
    };
    let error = push(None, NAME);
    assert!(matches!(error, HubError::NoToken { .. }), "{error}");
    assert!(error.to_string().contains("/settings/tokens"), "{error}");
    for (name, says) in [
        ("adapter", "its owner must be named"),
        ("org/adapter@v1", "leave the revision out"),
    ] {
        let error = push(Some(WRITER), name).to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(setup.hub(Some(WRITER)).check_push(&id(NAME)).is_ok());
    let config = HubConfig::new(setup.folder.path().join("no/cache"))
        .with_token(WRITER)
        .unwrap()
        .with_offline(true);
    let error = Hub::new(config).check_push(&id(NAME)).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    assert_eq!(setup.asked(), [""; 0]);

    for (token, name, status, says) in [
        ("hf_wrong", NAME, 401, "the token is not valid"),
        ("hf_reader", NAME, 403, "the token may write there"),
        (WRITER, "other/adapter", 403, "check the owner's name"),
    ] {
        let error = push(Some(token), name);
        let HubError::WriteDenied { status: found, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(found, status);
        let text = error.to_string();
        assert!(text.contains(says) && !text.contains(token), "{text}");
        // What the Hub says is passed on.
        assert!(
            text.contains("Invalid username") || text.contains("the rights"),
            "{text}"
        );
        let asked = setup.asked();
        assert_eq!((asked.len(), count(&asked, CREATE)), (2, 1), "{asked:?}");
    }
    // A token for reading finds the repository, and is refused when it would write.
    setup.push().unwrap();
    setup.write("README.md", b"# another card");
    setup.asked();
    let error = push(Some("hf_reader"), NAME);
    assert!(
        matches!(error, HubError::WriteDenied { status: 403, .. }),
        "{error}"
    );
    assert_eq!(setup.server.file(NAME, "README.md").unwrap(), b"# card");
}

#[test]
fn a_repository_with_other_contents_is_not_changed_unless_that_is_wished() {
    let setup = Setup::new();
    let there = [
        ("README.md", b"# theirs".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("adapter_config.json", b"{}".to_vec()),
    ];
    setup.server.model(NAME, there);
    let error = setup.push().unwrap_err();
    let HubError::Exists { there, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*there, ["README.md", "config.json"]);
    assert!(error.to_string().contains("--overwrite"), "{error}");
    let asked = setup.asked();
    assert_eq!((asked.len(), count(&asked, "/preupload/")), (2, 1));

    let pushed = setup.push_with(|options| options.overwrite = true).unwrap();
    assert_eq!(pushed.kept, ["adapter_config.json"]);
    setup.check();
    assert!(setup.server.file(NAME, "config.json").is_some());
    let asked = setup.asked();
    assert_eq!((count(&asked, CREATE), count(&asked, COMMIT)), (0, 1));

    // It is public, and should be private.
    let error = setup
        .push_with(|options| (options.private, options.overwrite) = (true, true))
        .unwrap_err();
    assert!(matches!(error, HubError::Public { .. }), "{error}");
    let asked = setup.asked();
    assert_eq!((asked.len(), count(&asked, "GET ")), (1, 1), "{asked:?}");

    // It exists, and this user may not see it.
    let setup = Setup::new();
    setup.server.model(NAME, [("x", b"x".to_vec())]);
    let hidden = Fault::Status(401, vec![("X-Error-Code", "RepoNotFound".to_string())]);
    setup.fault("GET /api/models/", hidden, 2);
    let error = setup.push().unwrap_err();
    assert!(matches!(error, HubError::Exists { .. }), "{error}");
    assert!(error.to_string().contains("choose another name"), "{error}");
    assert_eq!(count(&setup.asked(), CREATE), 1);
}

#[test]
fn changes_at_the_same_time_are_noticed() {
    // Somebody else's commit comes first.
    let setup = Setup::new();
    setup
        .server
        .model(NAME, [(".gitattributes", b"x".to_vec())]);
    let since = "{\"error\":\"A commit has happened since.\"}";
    setup.fault(COMMIT, Fault::Answer(412, since.to_string()), 1);
    let error = setup.push().unwrap_err();
    assert!(matches!(error, HubError::ChangedThere { .. }), "{error}");
    assert!(error.to_string().contains("has happened since"), "{error}");
    let requests = setup.server.requests();
    let commit = requests
        .iter()
        .find(|one| one.path.ends_with("/commit/main"));
    let text = String::from_utf8(commit.unwrap().body.clone()).unwrap();
    let parent = format!("\"parentCommit\":\"{}\"", server::COMMIT);
    assert!(text.lines().next().unwrap().contains(&parent), "{text}");
    setup.push().unwrap();
    setup.check();

    // A file is changed after it was listed.
    for (name, contents) in [("README.md", &b"# cart"[..]), (WEIGHTS, b"short")] {
        let setup = Setup::new();
        let upload = setup.upload();
        setup.write(name, contents);
        let hub = setup.hub(Some(WRITER));
        let options = PushOptions {
            private: false,
            overwrite: false,
            message: "x".to_string(),
        };
        let error = hub.push(&id(NAME), &upload, &options, &mut ()).unwrap_err();
        assert!(matches!(error, HubError::ChangedHere { .. }), "{error}");
        assert_eq!(count(&setup.asked(), "/commit/"), 0);
    }
}

/// Ctrl-C in the middle of a file.
#[test]
fn a_push_that_is_stopped_makes_no_commit() {
    struct Stop(bool);
    impl Progress for Stop {
        fn advanced(&mut self, done: u64) {
            self.0 |= done > 0;
        }
        fn is_stopped(&mut self) -> bool {
            self.0
        }
    }
    let setup = Setup::new();
    let hub = setup.hub(Some(WRITER));
    let options = PushOptions {
        private: false,
        overwrite: false,
        message: "x".to_string(),
    };
    let error = hub
        .push(&id(NAME), &setup.upload(), &options, &mut Stop(false))
        .unwrap_err();
    assert!(matches!(error, HubError::Stopped), "{error}");
    let asked = setup.asked();
    assert_eq!(
        (count(&asked, "/part/") > 1, count(&asked, COMMIT)),
        (false, 0)
    );
    setup.push().unwrap();
    setup.check();
}

#[test]
fn files_that_the_repository_ignores_are_left_out() {
    let setup = Setup::new();
    setup
        .server
        .model(NAME, [(".gitattributes", b"x".to_vec())]);
    setup
        .server
        .change(NAME, |repo| repo.ignored = Some("middle.bin".to_string()));
    let mut log = Log::default();
    let options = PushOptions {
        private: false,
        overwrite: false,
        message: "x".to_string(),
    };
    let hub = setup.hub(Some(WRITER));
    let pushed = hub
        .push(&id(NAME), &setup.upload(), &options, &mut log)
        .unwrap();
    assert!(!pushed.sent.contains(&"middle.bin".to_string()));
    assert!(setup.server.file(NAME, "middle.bin").is_none());
    assert!(log.notes[0].contains(".gitignore"), "{:?}", log.notes);
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let upload = r#"{"files":[{"path":"other","uploadMode":"lfs"}]}"#;
    let mode = r#"{"files":[{"path":"README.md","uploadMode":"carrier pigeon"}]}"#;
    let batch = |actions: &str| {
        let oid = etag(&weights());
        format!(r#"{{"objects":[{{"oid":"{oid}","size":1,{actions}}}]}}"#)
    };
    let of_upload = |href: &str, header: &str| {
        batch(&format!(
            r#""actions":{{"upload":{{"href":"{href}","header":{header}}}}}"#
        ))
    };
    let parts = r#"{"chunk_size":50000,"1":"http://127.0.0.1:9/a?secret"}"#;
    for (place, answer, says) in [
        ("/preupload/", "not JSON".to_string(), "cannot be read"),
        (
            "/preupload/",
            upload.to_string(),
            "says nothing about README.md",
        ),
        ("/preupload/", mode.to_string(), "carrier pigeon"),
        (
            "/batch",
            r#"{"objects":[]}"#.to_string(),
            "says nothing about",
        ),
        (
            "/batch",
            of_upload("file:///etc/passwd", "{}"),
            "no address",
        ),
        (
            "/batch",
            of_upload("http://127.0.0.1:9/x?secret", parts),
            "an address for each part",
        ),
        (
            "/batch",
            of_upload("http://127.0.0.1:9/x", r#"{"chunk_size":"0"}"#),
            "not a number above zero",
        ),
        (
            "/batch",
            batch(r#""error":{"code":507,"message":"quota exceeded"}"#),
            "quota exceeded",
        ),
        (
            "/commit/",
            r#"{"commitOid":"../x"}"#.to_string(),
            "is not a commit's hash",
        ),
    ] {
        let setup = Setup::new();
        setup.fault(place, Fault::Answer(200, answer), 1);
        let text = setup.push().unwrap_err().to_string();
        assert!(text.contains(says) && !text.contains("secret"), "{text}");
    }
    // A redirect does not lead what is sent to another server.
    let setup = Setup::new();
    let elsewhere = vec![("Location", "http://127.0.0.1:9/take".to_string())];
    setup.fault("/preupload/", Fault::Status(307, elsewhere), 1);
    let text = setup.push().unwrap_err().to_string();
    assert!(text.contains("to another server"), "{text}");
}
