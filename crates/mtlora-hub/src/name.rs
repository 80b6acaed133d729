//! Names of repositories, of revisions, and of files in them, and which of them are safe to use.

use std::fmt;
use std::str::FromStr;

use crate::error::HubError;

/// The revision that is used where none is named.
const MAIN: &str = "main";

/// The longest part of a repository's name, in characters.
const MAX_NAME: usize = 96;
/// The longest revision, and the longest path of a file in a repository, in bytes.
const MAX_PATH: usize = 512;
/// Names that are devices on Windows, with any file extension.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RepoKind {
    /// A model or an adapter.
    Model,
    /// A data set.
    Dataset,
}

impl RepoKind {
    /// How its folders' names in the cache begin, and what addresses call it.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    /// What messages call it.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "data set",
        }
    }
}

/// A repository's name, `name` or `owner/name`, and a revision of it: `roberta-base`, `FacebookAI/roberta-base@main`.
///
/// ```
/// use mtlora_hub::RepoId;
///
/// let id: RepoId = "org/name@v1.0".parse()?;
/// assert_eq!((id.name(), id.revision()), ("org/name", "v1.0"));
/// assert!("../name".parse::<RepoId>().is_err());
/// # Ok::<(), mtlora_hub::HubError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepoId {
    name: String,
    revision: String,
}

impl RepoId {
    /// The name, with its owner if it has one: `owner/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A branch, a tag or a commit; `main` where none was named.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Whether the revision is `main`.
    pub(crate) fn is_main(&self) -> bool {
        self.revision == MAIN
    }

    /// The same repository at another revision.
    ///
    /// # Errors
    /// Text that cannot be a revision.
    pub fn at(mut self, revision: &str) -> Result<Self, HubError> {
        check_revision(revision).map_err(|reason| HubError::Name {
            text: format!("{}@{revision}", self.name),
            reason,
        })?;
        self.revision = revision.to_string();
        Ok(self)
    }

    /// The repository that a cache's folder is a snapshot of, at that snapshot's commit. Only the path is read, which
    /// looks like `.../models--org--name/snapshots/<commit>`, so the folder need not exist.
    pub fn of_snapshot(folder: &str) -> Option<(RepoKind, Self)> {
        let mut parts = folder.trim_end_matches(['/', '\\']).rsplit(['/', '\\']);
        let commit = parts.next().filter(|commit| is_commit(commit))?;
        parts.next().filter(|part| *part == "snapshots")?;
        let folder = parts.next()?;
        let (kind, name) = [RepoKind::Model, RepoKind::Dataset]
            .into_iter()
            .find_map(|kind| {
                let name = folder.strip_prefix(kind.plural())?.strip_prefix("--")?;
                Some((kind, name.replacen("--", "/", 1)))
            })?;
        let id: Self = name.parse().ok()?;
        Some((kind, id.at(commit).ok()?))
    }

    /// Its folder's name in the cache.
    pub(crate) fn folder(&self, kind: RepoKind) -> String {
        format!("{}--{}", kind.plural(), self.name.replace('/', "--"))
    }
}

impl FromStr for RepoId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let (name, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let wrong = |reason| HubError::Name {
            text: text.to_string(),
            reason,
        };
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 {
            return Err(wrong("it has more than one `/`"));
        }
        for part in parts {
            check_name(part).map_err(wrong)?;
        }
        check_revision(revision).map_err(wrong)?;
        Ok(Self {
            name: name.to_string(),
            revision: revision.to_string(),
        })
    }
}

/// `org/name`, and `@revision` where it is not `main`.
impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.revision == MAIN {
            return Ok(());
        }
        write!(f, "@{}", self.revision)
    }
}

/// The Hub's rule for the parts of a repository's name.
fn check_name(part: &str) -> Result<(), &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| matches!(c, '-' | '.'));
    if part.is_empty() {
        return Err("a part of it is empty");
    }
    if part.len() > MAX_NAME {
        return Err("a part of it is longer than 96 characters");
    }
    if !part.chars().all(allowed) {
        return Err("it has characters other than letters, digits, `-`, `_` and `.`");
    }
    if edge(part.chars().next()) || edge(part.chars().next_back()) {
        return Err("a part of it begins or ends with `-` or `.`");
    }
    if part.contains("--") || part.contains("..") {
        return Err("it has `--` or `..`");
    }
    Ok(())
}

/// Whether `text` is a full commit hash.
pub(crate) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// Whether `text` is `length` lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

fn check_revision(revision: &str) -> Result<(), &'static str> {
    check_path(revision)
        .map_err(|_| "its revision cannot be the name of a branch, a tag or a commit")
}

/// Checks that the path of a file in a repository may become a path inside of the cache on any system.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Err("is empty or longer than 512 bytes");
    }
    path.split('/').try_for_each(check_component)
}

fn check_component(part: &str) -> Result<(), &'static str> {
    if part.is_empty() || part == "." || part == ".." {
        return Err("does not stay inside of its folder");
    }
    if part
        .chars()
        .any(|c| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|'))
    {
        return Err("has characters that some system does not allow in a file name");
    }
    if part.ends_with(['.', ' ']) || part.starts_with(' ') {
        return Err("has a part that begins with a space, or ends with one or with `.`");
    }
    let stem = part.split('.').next().unwrap_or(part).trim_end();
    let stem = stem.to_ascii_lowercase();
    let numbered = |device| {
        stem.strip_prefix(device)
            .is_some_and(|rest| rest.chars().count() == 1 && !rest.starts_with(char::is_alphabetic))
    };
    if DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt") {
        return Err("has a part that is the name of a device on Windows");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn names_are_the_hubs() {
        for (text, name, revision) in [
            ("roberta-base", "roberta-base", "main"),
            ("org/name", "org/name", "main"),
            ("org/na.me_1@refs/pr/3", "org/na.me_1", "refs/pr/3"),
            ("a/b@v1.0", "a/b", "v1.0"),
        ] {
            let id: RepoId = text.parse().unwrap();
            assert_eq!((id.name(), id.revision()), (name, revision));
            assert_eq!(id.to_string().parse::<RepoId>().unwrap(), id);
        }
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "..",
            "../a",
            "a/..",
            "./a",
            "~/a",
            "a b",
            "a\\b",
            "C:\\a",
            "C:a",
            "a--b",
            "-a",
            "a.",
            "é",
            "a\0",
            "a/b@",
            "a/b@../x",
            "a/b@/x",
            "a/b@x\\y",
            "a@b@c:d",
            "a\n",
            "org/name/",
        ] {
            assert!(text.parse::<RepoId>().is_err(), "{text:?}");
        }
        assert!("x".repeat(96).parse::<RepoId>().is_ok());
        assert!("x".repeat(97).parse::<RepoId>().is_err());
    }

    #[test]
    fn a_snapshot_says_what_it_is_of() {
        for (folder, kind, text) in [
            (
                format!("/c/hub/models--org--name/snapshots/{COMMIT}"),
                RepoKind::Model,
                "org/name",
            ),
            (
                format!("D:\\hub\\models--gpt2\\snapshots\\{COMMIT}\\"),
                RepoKind::Model,
                "gpt2",
            ),
            (
                format!("x/datasets--nyu-mll--glue/snapshots/{COMMIT}"),
                RepoKind::Dataset,
                "nyu-mll/glue",
            ),
        ] {
            let (found, id) = RepoId::of_snapshot(&folder).unwrap();
            assert_eq!((found, id.to_string()), (kind, format!("{text}@{COMMIT}")));
            assert!(folder.contains(&id.folder(kind)));
        }
        for folder in [
            "models/roberta",
            "models--org--name/snapshots/main",
            &format!("models--org--name/snapshot/{COMMIT}"),
            &format!("models----x/snapshots/{COMMIT}"),
            &format!("spaces--a--b/snapshots/{COMMIT}"),
        ] {
            assert!(RepoId::of_snapshot(folder).is_none(), "{folder}");
        }
    }

    #[test]
    fn a_file_cannot_lead_out_of_its_folder_on_any_system() {
        for good in [
            "config.json",
            "onnx/model.onnx",
            ".gitattributes",
            "a/b/c d.txt",
            "..x",
            "com10",
            "console",
            "é",
        ] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "//host/share",
            "../x",
            "a/../x",
            "a/..",
            "./x",
            "a//b",
            "a/",
            "..\\x",
            "a\\..\\x",
            "C:\\x",
            "C:x",
            "\\\\host\\share",
            "\\\\?\\C:\\x",
            "a:stream",
            "nul",
            "NUL.txt",
            "a/CON",
            "com1",
            "lpt9.x",
            "COM¹",
            "conin$",
            "x.",
            "x ",
            " x",
            "a. /b",
            "a\0b",
            "a\nb",
            "a|b",
            "a?",
            "aux .txt",
        ] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        assert!(check_path(&"a/".repeat(400)).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_inside(path in "[a-c./\\\\: ~]{0,12}|\\PC{0,20}|(\\.\\./|[a-z]{1,3}/){0,5}[a-z.]{0,4}") {
            if check_path(&path).is_ok() {
                let parts: Vec<Component> = Path::new(&path).components().collect();
                prop_assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))));
                prop_assert_eq!(parts.len(), path.split('/').count());
            }
            if let Ok(id) = path.parse::<RepoId>() {
                let folder = id.folder(RepoKind::Model);
                prop_assert_eq!(Path::new(&folder).components().count(), 1);
            }
        }
    }
}
