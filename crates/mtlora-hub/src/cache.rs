//! The cache's folders, which are laid out as Python's `huggingface_hub` does under `~/.cache/huggingface/hub`.
//!
//! ```text
//! models--org--name/blobs/<hash>                     the files' contents
//! models--org--name/snapshots/<commit>/config.json   links to them
//! models--org--name/refs/main                        the commit that a branch or tag was last seen at
//! .locks/models--org--name/<hash>.lock               locked by the process that writes a blob
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::HubError;
use crate::hash::ContentHash;
use crate::name::{RepoId, RepoKind, check_path, is_commit};

const BLOBS: &str = "blobs";
const SNAPSHOTS: &str = "snapshots";
const REFS: &str = "refs";
const LOCKS: &str = ".locks";

/// One repository's folders in the cache.
#[derive(Clone, Debug)]
pub(crate) struct RepoCache {
    /// The folder of the whole cache.
    root: PathBuf,
    /// The name of the repository's folder in it.
    folder: String,
}

/// The lock that is held while a blob is written. Other processes that want to write the same blob wait for it.
pub(crate) struct BlobLock {
    /// `None` where the file system has no locks.
    file: Option<File>,
}

impl BlobLock {
    /// Whether this process is the only one that writes the blob.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.file.is_some()
    }
}

impl RepoCache {
    pub(crate) fn new(root: &Path, kind: RepoKind, id: &RepoId) -> Self {
        Self {
            root: root.to_path_buf(),
            folder: id.folder(kind),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that `revision` pointed to when it was last looked up.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_string());
        }
        check_path(revision).ok()?;
        let path = self.root.join(&self.folder).join(REFS).join(revision);
        let text = fs::read_to_string(path).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_commit(commit))
    }

    /// Remembers that `revision` points to `commit`.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let (above, name) = split(revision);
        let folder = self.make(&[&self.folder, REFS, above])?;
        let path = folder.join(name);
        let beside = folder.join(beside(name));
        let write = || {
            fs::write(&beside, commit)?;
            fs::rename(&beside, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&beside);
            HubError::io(&path, "writing", error)
        })
    }

    /// The folder of the files at `commit`.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join(&self.folder).join(SNAPSHOTS).join(commit)
    }

    /// The path of a file at `commit`, if the cache has it.
    pub(crate) fn file(&self, commit: &str, file: &str) -> Option<PathBuf> {
        check_path(file).ok()?;
        let path = self.snapshot(commit).join(file);
        path.is_file().then_some(path)
    }

    /// The path of the contents with that hash, if the cache has them.
    pub(crate) fn blob(&self, hash: &ContentHash) -> Option<PathBuf> {
        let path = self.root.join(&self.folder).join(BLOBS).join(hash.name());
        path.is_file().then_some(path)
    }

    /// The path to write the contents with that hash to. Its folder is created.
    pub(crate) fn blob_to_write(&self, hash: &ContentHash) -> Result<PathBuf, HubError> {
        Ok(self.make(&[&self.folder, BLOBS])?.join(hash.name()))
    }

    /// Takes the lock of the blob with that hash. `waiting` is called if another process holds it.
    pub(crate) fn lock(
        &self,
        hash: &ContentHash,
        waiting: impl FnOnce(),
    ) -> Result<BlobLock, HubError> {
        let folder = self.make(&[LOCKS, &self.folder])?;
        let path = folder.join(format!("{}.lock", hash.name()));
        let failed = |error| HubError::io(&path, "locking", error);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(self.outside(&path));
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let locked = match file.try_lock() {
            Ok(()) => Ok(()),
            Err(fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock()
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        };
        match locked {
            Ok(()) => Ok(BlobLock { file: Some(file) }),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(BlobLock { file: None }),
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes `file` at `commit` a link to the blob with that hash, or a copy where the system cannot make links.
    pub(crate) fn link(
        &self,
        commit: &str,
        file: &str,
        hash: &ContentHash,
    ) -> Result<PathBuf, HubError> {
        let (above, name) = split(file);
        let folder = self.make(&[&self.folder, SNAPSHOTS, commit, above])?;
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        // The snapshot, `snapshots` and the file's own folders lie between it and `blobs`.
        let up = "../".repeat(2 + above.split('/').filter(|part| !part.is_empty()).count());
        let target = PathBuf::from(format!("{up}{BLOBS}/{}", hash.name()));
        let beside = folder.join(beside(name));
        let made = match symlink(&target, &beside) {
            Ok(()) => Ok(()),
            Err(_) => match self.blob(hash) {
                Some(blob) => copy_new(&blob, &beside),
                None => Err(io::Error::from(io::ErrorKind::NotFound)),
            },
        };
        made.and_then(|()| fs::rename(&beside, &path))
            .map_err(|error| {
                let _ = fs::remove_file(&beside);
                HubError::io(&path, "writing", error)
            })?;
        Ok(path)
    }

    /// Creates the folder `parts` of the cache. If one of them is a link that leads out of the cache, it is refused.
    fn make(&self, parts: &[&str]) -> Result<PathBuf, HubError> {
        let failed = |path: &Path, error| HubError::io(path, "making the folder", error);
        fs::create_dir_all(&self.root).map_err(|error| failed(&self.root, error))?;
        let root = self
            .root
            .canonicalize()
            .map_err(|error| failed(&self.root, error))?;
        let mut folder = self.root.clone();
        for part in parts.iter().flat_map(|part| part.split('/')) {
            if part.is_empty() {
                continue;
            }
            folder.push(part);
            match fs::create_dir(&folder) {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
                Err(error) => return Err(failed(&folder, error)),
            }
            let real = folder
                .canonicalize()
                .map_err(|error| failed(&folder, error))?;
            if !real.starts_with(&root) {
                return Err(self.outside(&folder));
            }
        }
        Ok(folder)
    }

    fn outside(&self, path: &Path) -> HubError {
        HubError::OutsideCache {
            path: path.to_path_buf(),
            cache: self.root.clone(),
        }
    }
}

/// Opens the file that collects a blob's contents, so that writing appends to it. Also gives its length in bytes.
pub(crate) fn open_partial(path: &Path) -> Result<(File, u64), HubError> {
    let failed = |error| HubError::io(path, "writing", error);
    // Not made by this crate, and writing through a link would write elsewhere.
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        fs::remove_file(path).map_err(failed)?;
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    Ok((file, length))
}

/// Renames complete contents to their final name.
pub(crate) fn finish(mut file: File, partial: &Path, blob: &Path) -> Result<(), HubError> {
    file.flush()
        .and_then(|()| file.sync_all())
        .and_then(|()| {
            drop(file);
            fs::rename(partial, blob)
        })
        .map_err(|error| HubError::io(blob, "writing", error))
}

/// Splits a path into its folders and its last part.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// A temporary name beside `name` that no other process or thread uses at the same time.
pub(crate) fn beside(name: &str) -> String {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    format!(".{name}.{}.{number}", std::process::id())
}

/// Copies to a file that must not exist yet: if it were a link, the copy could overwrite its own source.
fn copy_new(from: &Path, to: &Path) -> io::Result<()> {
    let mut out = File::options().write(true).create_new(true).open(to)?;
    io::copy(&mut File::open(from)?, &mut out)?;
    out.sync_all()
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn repo(root: &Path) -> RepoCache {
        RepoCache::new(root, RepoKind::Model, &"org/name".parse().unwrap())
    }

    fn blob(cache: &RepoCache, contents: &[u8]) -> ContentHash {
        let hash = ContentHash::parse(&"a".repeat(40)).unwrap();
        fs::write(cache.blob_to_write(&hash).unwrap(), contents).unwrap();
        hash
    }

    #[test]
    fn the_layout_is_the_one_of_python() {
        let folder = tempfile::tempdir().unwrap();
        let cache = repo(folder.path());
        assert_eq!(cache.commit("main"), None);
        cache.set_commit("main", COMMIT).unwrap();
        cache.set_commit("refs/pr/1", COMMIT).unwrap();
        assert_eq!(cache.commit("main").unwrap(), COMMIT);
        assert_eq!(cache.commit(COMMIT).unwrap(), COMMIT);
        let hash = blob(&cache, b"text");
        for file in ["config.json", "a/b/c.json"] {
            assert_eq!(cache.file(COMMIT, file), None);
            let path = cache.link(COMMIT, file, &hash).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"text");
            assert_eq!(cache.file(COMMIT, file), Some(path));
        }
        let repo = folder.path().join("models--org--name");
        let read = |path: &str| fs::read_to_string(repo.join(path)).unwrap();
        assert_eq!(read("refs/main"), COMMIT);
        assert_eq!(read("refs/refs/pr/1"), COMMIT);
        assert_eq!(read(&format!("blobs/{}", "a".repeat(40))), "text");
        assert_eq!(read(&format!("snapshots/{COMMIT}/a/b/c.json")), "text");
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(repo.join(format!("snapshots/{COMMIT}/config.json"))).unwrap(),
            Path::new(&format!("../../blobs/{}", "a".repeat(40)))
        );
    }

    #[test]
    fn a_reference_that_is_not_a_commit_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let cache = repo(folder.path());
        cache.set_commit("main", COMMIT).unwrap();
        for text in ["../../../etc", "", "0123", &COMMIT.to_uppercase()] {
            fs::write(folder.path().join("models--org--name/refs/main"), text).unwrap();
            assert_eq!(cache.commit("main"), None);
        }
        assert_eq!(cache.commit("../refs/main"), None);
        assert_eq!(cache.file(COMMIT, "../../refs/main"), None);
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link_out_of_the_cache() {
        use std::os::unix::fs::symlink;
        let outside = tempfile::tempdir().unwrap();
        for link in [
            "models--org--name",
            "models--org--name/blobs",
            "models--org--name/refs",
            "models--org--name/snapshots",
            &format!("models--org--name/snapshots/{COMMIT}"),
            &format!("models--org--name/snapshots/{COMMIT}/sub"),
            ".locks",
            ".locks/models--org--name",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let cache = repo(folder.path());
            let path = folder.path().join(link);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(outside.path(), &path).unwrap();
            let hash = ContentHash::parse(&"a".repeat(40)).unwrap();
            let results = [
                cache.set_commit("main", COMMIT).err(),
                cache.blob_to_write(&hash).err(),
                cache.lock(&hash, || ()).err(),
                cache.link(COMMIT, "sub/x.json", &hash).err(),
            ];
            let refused = |error: &HubError| matches!(error, HubError::OutsideCache { .. });
            assert!(results.iter().flatten().any(refused), "{link}");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{link}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn files_are_not_written_through_links() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        let root = folder.path().join("cache");
        let cache = repo(&root);
        cache.set_commit("main", COMMIT).unwrap();
        let hash = blob(&cache, b"text");
        let plant = |path: PathBuf| {
            let _ = fs::remove_file(&path);
            symlink(&victim, &path).unwrap();
            path
        };
        plant(root.join("models--org--name/refs/main"));
        cache.set_commit("main", COMMIT).unwrap();
        let partial = plant(root.join("models--org--name/blobs/x.incomplete"));
        let (mut file, length) = open_partial(&partial).unwrap();
        assert_eq!(length, 0);
        file.write_all(b"other").unwrap();
        drop(cache.lock(&hash, || ()).unwrap());
        let lock = root.join(format!(".locks/models--org--name/{}.lock", hash.name()));
        plant(lock);
        assert!(cache.lock(&hash, || ()).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    }

    #[test]
    fn many_writers_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let cache = repo(folder.path());
        let hash = blob(&cache, b"text");
        let other = COMMIT.replace('0', "f");
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (cache, hash, other) = (&cache, &hash, &other);
                scope.spawn(move || {
                    for turn in 0..100 {
                        let commit = if (thread + turn) % 2 == 0 {
                            COMMIT
                        } else {
                            other
                        };
                        cache.set_commit("main", commit).unwrap();
                        cache.link(commit, &format!("f{turn}"), hash).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read(cache.blob(&hash).unwrap()).unwrap(), b"text");
        for commit in [COMMIT, &other] {
            assert_eq!(fs::read_dir(cache.snapshot(commit)).unwrap().count(), 100);
            assert_eq!(
                fs::read(cache.file(commit, "f99").unwrap()).unwrap(),
                b"text"
            );
        }
        let refs = folder.path().join("models--org--name/refs");
        assert_eq!(fs::read_dir(refs).unwrap().count(), 1);
    }

    #[test]
    fn a_copy_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        fs::write(&from, "text").unwrap();
        copy_new(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"text");
        assert!(copy_new(&from, &from).is_err());
        assert_eq!(fs::read(&from).unwrap(), b"text");
    }

    #[test]
    fn a_second_writer_waits() {
        let folder = tempfile::tempdir().unwrap();
        let cache = repo(folder.path());
        let hash = ContentHash::parse(&"a".repeat(64)).unwrap();
        let first = cache
            .lock(&hash, || panic!("nobody else is there"))
            .unwrap();
        assert!(first.is_exclusive());
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let waiting = send.clone();
                let _second = cache
                    .lock(&hash, || waiting.send("waits").unwrap())
                    .unwrap();
                send.send("has it").unwrap();
            });
            assert_eq!(receive.recv().unwrap(), "waits");
            assert!(receive.try_recv().is_err());
            drop(first);
            assert_eq!(receive.recv().unwrap(), "has it");
        });
    }
}
