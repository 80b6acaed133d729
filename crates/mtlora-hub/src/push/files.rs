//! The files that are sent to a repository.

use std::fs::{self, File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::HubError;
use crate::hash::Hashes;
use crate::name::check_path;

/// How many of a file's first bytes the Hub looks at to tell text from data.
const SAMPLE: u64 = 512;

/// The files of a folder as they were when they were listed. Nothing else is sent, and no file that has changed since is
/// published.
#[derive(Clone, Debug)]
pub struct Upload {
    files: Vec<UploadFile>,
}

impl Upload {
    /// Lists and hashes the files in `folder` and the folders in it, ordered by name. Hidden files and links are left out.
    ///
    /// # Errors
    /// A file cannot be read, a file's name is not allowed on the Hub, or the folder has no files.
    pub fn of_folder(folder: &Path) -> Result<Self, HubError> {
        let mut files = Vec::new();
        let mut folders = vec![(folder.to_path_buf(), String::new())];
        while let Some((at, prefix)) = folders.pop() {
            let failed = |error| HubError::io(&at, "listing", error);
            for entry in fs::read_dir(&at).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let path = entry.path();
                let name = entry.file_name();
                let Some(name) = name.to_str() else {
                    let lossy = name.to_string_lossy().into_owned();
                    return Err(unsafe_name(folder, lossy, "is not UTF-8"));
                };
                if name.starts_with('.') {
                    continue;
                }
                let name = format!("{prefix}{name}");
                let kind = entry.file_type().map_err(failed)?;
                if kind.is_dir() {
                    folders.push((path, format!("{name}/")));
                } else if kind.is_file() {
                    if let Err(reason) = check_path(&name) {
                        return Err(unsafe_name(folder, name, reason));
                    }
                    files.push(UploadFile::read(name, path)?);
                }
            }
        }
        if files.is_empty() {
            let error = std::io::Error::other("there is no file in it to send");
            return Err(HubError::io(folder, "listing", error));
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { files })
    }

    /// The files, ordered by name.
    pub fn files(&self) -> &[UploadFile] {
        &self.files
    }

    /// The size of all files in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(UploadFile::size).sum()
    }
}

fn unsafe_name(folder: &Path, name: String, reason: &'static str) -> HubError {
    HubError::UnsafeName {
        what: folder.display().to_string(),
        name,
        reason,
    }
}

/// A file that is sent.
#[derive(Clone, Debug)]
pub struct UploadFile {
    name: String,
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
    hashes: Hashes,
    /// The first bytes.
    pub(crate) sample: Vec<u8>,
}

impl UploadFile {
    fn read(name: String, path: PathBuf) -> Result<Self, HubError> {
        let failed = |error| HubError::io(&path, "reading", error);
        let mut file = File::open(&path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mut sample = Vec::new();
        let mut head = file.by_ref().take(SAMPLE);
        head.read_to_end(&mut sample).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let hashes = Hashes::of(file, about.len()).map_err(failed)?;
        Ok(Self {
            name,
            size: about.len(),
            modified: about.modified().ok(),
            hashes,
            sample,
            path,
        })
    }

    /// Its path in the repository, with `/` between folders.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The SHA-256 of its contents, 64 hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.hashes.sha256
    }

    /// Whether the Hub's hash of a file, git's or SHA-256, is that of these contents.
    pub(crate) fn is_known_as(&self, oid: &str) -> bool {
        [&self.hashes.sha256, &self.hashes.git_sha1]
            .into_iter()
            .any(|own| own == oid)
    }

    /// The contents, which must be those that were listed. They are read whole, so the file must be small.
    pub(crate) fn contents(&self) -> Result<Vec<u8>, HubError> {
        let bytes = fs::read(&self.path).map_err(|error| self.unread(error))?;
        match Hashes::of(&bytes[..], self.size) {
            Ok(hashes) if hashes == self.hashes => Ok(bytes),
            _ => Err(self.changed()),
        }
    }

    /// The file, opened at byte `from`. Its size and time must be those that were listed.
    pub(crate) fn open_at(&self, from: u64) -> Result<File, HubError> {
        let mut file = File::open(&self.path).map_err(|error| self.unread(error))?;
        let about = file.metadata().map_err(|error| self.unread(error))?;
        self.check(&about)?;
        file.seek(SeekFrom::Start(from))
            .map_err(|error| self.unread(error))?;
        Ok(file)
    }

    /// Fails if the file is no longer the one that was listed.
    pub(crate) fn check_unchanged(&self) -> Result<(), HubError> {
        self.open_at(0).map(drop)
    }

    fn check(&self, about: &Metadata) -> Result<(), HubError> {
        if about.len() == self.size && about.modified().ok() == self.modified {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    pub(crate) fn unread(&self, error: std::io::Error) -> HubError {
        HubError::io(&self.path, "reading", error)
    }

    pub(crate) fn changed(&self) -> HubError {
        HubError::ChangedHere {
            path: self.path.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_files_are_listed_but_hidden_ones_and_links() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(Upload::of_folder(folder.path()).is_err());
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir(at(".git")).unwrap();
        for name in ["z.json", "a/b/c", ".hidden", ".git/config"] {
            fs::write(at(name), name).unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
        let upload = Upload::of_folder(folder.path()).unwrap();
        let names: Vec<&str> = upload.files().iter().map(UploadFile::name).collect();
        assert_eq!(names, ["a/b/c", "z.json"]);
        assert_eq!(upload.size(), 5 + 6);
        #[cfg(unix)]
        {
            fs::write(at("a:b"), "").unwrap();
            let error = Upload::of_folder(folder.path()).unwrap_err();
            assert!(matches!(error, HubError::UnsafeName { .. }), "{error}");
        }
    }

    #[test]
    fn a_file_that_changed_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "as listed").unwrap();
        let upload = Upload::of_folder(folder.path()).unwrap();
        let file = &upload.files()[0];
        assert_eq!(file.contents().unwrap(), b"as listed");
        let hash = "e6a9b3b6ccd3c2ad2d3c3b4a7b9fc9ef";
        assert!(file.is_known_as(file.sha256()) && !file.is_known_as(hash));
        fs::write(&path, "not as it").unwrap();
        let error = file.contents().unwrap_err();
        assert!(matches!(error, HubError::ChangedHere { .. }), "{error}");
        fs::write(&path, "longer than it was").unwrap();
        assert!(file.check_unchanged().is_err() && file.open_at(3).is_err());
    }
}
