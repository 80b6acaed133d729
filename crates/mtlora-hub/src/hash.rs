//! The hashes by which the Hub names files' contents.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Digest;

use crate::name::is_hex;

/// How much is hashed at a time, in bytes.
const CHUNK: usize = 1 << 18;

/// The hash in one of the Hub's ETags: SHA-256 for large files; for others git's hash, which is the SHA-1 of
/// `blob <length>`, a zero byte, and the contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContentHash {
    Sha256(String),
    GitSha1(String),
}

impl ContentHash {
    /// Reads an ETag, with or without quotation marks and the `W/` of a weak one. `None` if it is not such a hash.
    pub(crate) fn parse(etag: &str) -> Option<Self> {
        let text = etag.trim();
        let text = text.strip_prefix("W/").unwrap_or(text);
        let text = text.trim_matches('"');
        if is_hex(text, 64) {
            Some(Self::Sha256(text.to_string()))
        } else if is_hex(text, 40) {
            Some(Self::GitSha1(text.to_string()))
        } else {
            None
        }
    }

    /// The hexadecimal digits, by which the cache names the file.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::GitSha1(text) => text,
        }
    }

    /// Hashes a file's contents in the same way.
    pub(crate) fn of_file(&self, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(match self {
            Self::Sha256(_) => Self::Sha256(digest(sha2::Sha256::new(), file)?),
            Self::GitSha1(_) => {
                let mut hasher = sha1::Sha1::new();
                hasher.update(format!("blob {}\0", file.metadata()?.len()));
                Self::GitSha1(digest(hasher, file)?)
            }
        })
    }
}

/// What the Hub may know a file's contents by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    pub(crate) sha256: String,
    pub(crate) git_sha1: String,
}

impl Hashes {
    /// Hashes contents that must be exactly `size` bytes long.
    pub(crate) fn of(mut contents: impl Read, size: u64) -> io::Result<Self> {
        let mut sha256 = sha2::Sha256::new();
        let mut git_sha1 = sha1::Sha1::new();
        git_sha1.update(format!("blob {size}\0"));
        let mut buffer = vec![0; CHUNK];
        let mut read = 0;
        loop {
            let length = contents.read(&mut buffer)?;
            let bytes = buffer.get(..length).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            read += length as u64;
            sha256.update(bytes);
            git_sha1.update(bytes);
        }
        if read != size {
            return Err(io::Error::other(format!(
                "{read} bytes were read, but the file has {size}"
            )));
        }
        Ok(Self {
            sha256: hex(&sha256.finalize()),
            git_sha1: hex(&git_sha1.finalize()),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest<D: Digest>(mut hasher: D, mut file: File) -> io::Result<String> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hasher.update(buffer.get(..length).unwrap_or_default()),
        }
    }
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_hashes_are_those_of_git_and_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "hello\n").unwrap();
        // `git hash-object` and `sha256sum` of the same file.
        for known in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            let hash = ContentHash::parse(&format!("W/\"{known}\"")).unwrap();
            assert_eq!(hash.name(), known);
            assert_eq!(hash.of_file(&path).unwrap(), hash);
            std::fs::write(&path, "hello").unwrap();
            assert_ne!(hash.of_file(&path).unwrap(), hash);
            std::fs::write(&path, "hello\n").unwrap();
            let both = Hashes::of(&b"hello\n"[..], 6).unwrap();
            assert!([both.git_sha1, both.sha256].contains(&known.to_string()));
        }
        assert!(Hashes::of(&b"hello\n"[..], 5).is_err());
    }

    #[test]
    fn an_etag_that_is_not_a_hash_is_refused() {
        for etag in [
            "",
            "\"\"",
            "../../x",
            "abc",
            &"g".repeat(40),
            &"A".repeat(40),
            &"a".repeat(41),
            "\"a-2\"",
        ] {
            assert_eq!(ContentHash::parse(etag), None, "{etag}");
        }
    }
}
