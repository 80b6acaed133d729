//! Writes the files of model folders so that a file is either complete or absent.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::ModelError;
use crate::files::names::{CHAT_TEMPLATE_FILE, GENERATION_CONFIG_FILE};
use crate::files::read::{is_there, open_file, read_bounded};
use crate::files::stored_dtype::StoredDtype;
use crate::files::tensor_values::TensorValues;
use crate::gguf::model::companion;

/// The files that can belong to a tokenizer; a folder has some of them.
pub const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    CHAT_TEMPLATE_FILE,
];

/// A tensor to be written: its name, its shape and its values.
pub(crate) type NamedTensor<'a> = (String, Vec<usize>, TensorValues<'a>);

/// The number of elements that are converted to bytes at a time.
const CHUNK: usize = 4096;

/// Makes `folder`, and those that it is in, if they do not exist.
pub(crate) fn create_folder(folder: &Path) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(|error| ModelError::write(folder, error))
}

/// Writes `bytes` to a temporary file next to `path` and then renames it. At any moment, even if the program is killed
/// or the disk is full, the file at `path` is either complete or as it was before.
///
/// # Errors
/// [`ModelError::Write`]; the temporary file has been removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    write_through(path, |file| file.write_all(bytes))
}

/// Like [`write_atomically`], with the bytes that `write` produces; for files that are too large to be in memory twice.
///
/// # Errors
/// [`ModelError::Write`], for `write`'s own errors too.
pub fn write_through(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ModelError> {
    let (temporary, file) =
        create_beside(path).map_err(|source| ModelError::write(path, source))?;
    let written = fill(file, write).and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        // The first error is the one to report. If the removal fails too, the file is visible in the folder.
        let _ = fs::remove_file(&temporary);
        return Err(ModelError::write(path, source));
    }
    sync_folder_of(path);
    Ok(())
}

/// A new file in the folder of `path`, under a name that no other process uses.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path has no file name",
        ));
    };
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_file_name(format!(
            ".{}.{}-{number}.tmp",
            name.to_string_lossy(),
            process::id()
        ));
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
        {
            Ok(file) => return Ok((temporary, file)),
            // A killed program with the same process id may have left this file.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn fill(file: File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut buffered = BufWriter::with_capacity(1 << 20, file);
    write(&mut buffered)?;
    let file = buffered
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    // Without this before the rename, a power failure could leave an empty file under the new name.
    file.sync_all()
}

/// Makes a rename durable if the system supports it; the file is complete in any case.
fn sync_folder_of(path: &Path) {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if let Ok(folder) = File::open(parent) {
        let _ = folder.sync_all();
    }
}

/// Writes a safetensors file of F32 tensors, like [`write_atomically`], with the metadata that Python's tools expect
/// (`"format": "pt"`). Tensors are written in the order of their names, so that the same tensors give the same bytes.
///
/// # Errors
/// When a shape does not match the number of elements, a name is used twice, or the file cannot be written.
pub fn write_checkpoint<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Vec<usize>, Cow<'a, [f32]>)>,
) -> Result<(), ModelError> {
    let tensors = tensors.into_iter();
    let tensors = tensors.map(|(name, shape, values)| (name, shape, TensorValues::Ready(values)));
    write_checkpoint_in(StoredDtype::F32, path, tensors)
}

/// Like [`write_checkpoint`], with the tensors in this precision, and each of them made when it is written.
///
/// # Errors
/// As [`write_checkpoint`].
pub(crate) fn write_checkpoint_in<'a>(
    dtype: StoredDtype,
    path: &Path,
    tensors: impl IntoIterator<Item = NamedTensor<'a>>,
) -> Result<(), ModelError> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut position = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    let mut used = HashSet::new();
    for (name, shape, values) in &tensors {
        let wrong = |message: String| ModelError::BadTensor {
            path: path.to_path_buf(),
            name: name.clone(),
            message,
        };
        let elements = shape
            .iter()
            .try_fold(1usize, |elements, &size| elements.checked_mul(size));
        let Some(elements) = elements else {
            return Err(wrong(format!("its shape {shape:?} is impossible")));
        };
        if let TensorValues::Ready(values) = values
            && values.len() != elements
        {
            return Err(wrong(format!(
                "its shape {shape:?} does not fit its {} elements",
                values.len()
            )));
        }
        if !used.insert(name.as_str()) || name == "__metadata__" {
            return Err(wrong("the name is used twice or is reserved".to_string()));
        }
        let end = position + elements.saturating_mul(dtype.bytes());
        let info = TensorInfo {
            dtype: dtype.safetensors(),
            shape: shape.clone(),
            data_offsets: (position, end),
        };
        infos.push((name.clone(), info));
        position = end;
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let mut header = Metadata::new(Some(metadata), infos)
        .map_err(io::Error::other)
        .and_then(|metadata| Ok(serde_json::to_vec(&metadata)?))
        .map_err(|source| ModelError::write(path, source))?;
    // The data begins at a multiple of 8, so that other readers can map it into memory and use it in place.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_through(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut bytes = Vec::with_capacity(CHUNK * dtype.bytes());
        for (name, shape, values) in &tensors {
            let values = values.get();
            if values.len() != shape.iter().product::<usize>() {
                let message = format!("the values of `{name}` do not fit its shape");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            for chunk in values.chunks(CHUNK) {
                bytes.clear();
                dtype.write(chunk, &mut bytes);
                file.write_all(&bytes)?;
            }
        }
        Ok(())
    })
}

/// Copies a tokenizer from one model folder to another: those of tokenizer.json, its settings files and the vocabulary
/// files that exist, each atomically. Returns the names of the copied files.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_tokenizer_files(from: &Path, to: &Path) -> Result<Vec<&'static str>, ModelError> {
    let mut copied = Vec::new();
    for name in TOKENIZER_FILES {
        if copy_if_there(from, to, name)? {
            copied.push(name);
        }
    }
    Ok(copied)
}

/// Copies a folder's decoding settings, `generation_config.json`, if the file exists.
///
/// # Errors
/// When the file cannot be read or written.
pub fn copy_generation_config(from: &Path, to: &Path) -> Result<(), ModelError> {
    copy_if_there(from, to, GENERATION_CONFIG_FILE).map(|_| ())
}

fn copy_if_there(from: &Path, to: &Path, name: &str) -> Result<bool, ModelError> {
    let source = from.join(name);
    if !is_there(&source) {
        return Ok(false);
    }
    if companion(&source).is_some() {
        write_atomically(&to.join(name), &read_bounded(&source, u64::MAX)?)?;
        return Ok(true);
    }
    let (mut file, _) = open_file(&source)?;
    write_through(&to.join(name), |out| io::copy(&mut file, out).map(|_| ()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::files::checkpoint::Checkpoint;
    use proptest::prelude::*;

    fn names_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        write_atomically(&path, b"old").unwrap();
        let error = write_through(&path, |file| {
            file.write_all(&[1; 3 << 20])?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(matches!(error, ModelError::Write { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(folder.path()), ["f"]);
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");

        let nowhere = folder.path().join("no/f");
        assert!(write_atomically(&nowhere, b"").is_err());
        assert!(write_atomically(Path::new("/"), b"").is_err());
        // A folder of the same name cannot be replaced by a file.
        fs::create_dir(folder.path().join("g")).unwrap();
        fs::write(folder.path().join("g/h"), "").unwrap();
        assert!(write_atomically(&folder.path().join("g"), b"").is_err());
        assert_eq!(names_in(folder.path()), ["f", "g"]);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = Path::new("/dev/full");
        if let Ok(file) = OpenOptions::new().write(true).open(full) {
            let error = fill(file, |out| out.write_all(&[0; 10])).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn invalid_tensors_are_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let tensor = |name: &str, shape: &[usize]| {
            (name.to_string(), shape.to_vec(), Cow::Owned(vec![0.0; 6]))
        };
        for tensors in [
            vec![tensor("a", &[2, 2])],
            vec![tensor("a", &[usize::MAX, 7])],
            vec![tensor("a", &[6]), tensor("a", &[6])],
            vec![tensor("__metadata__", &[6])],
        ] {
            let error = write_checkpoint(&path, tensors).unwrap_err();
            assert!(matches!(error, ModelError::BadTensor { .. }), "{error}");
        }
        assert!(names_in(folder.path()).is_empty());
    }

    #[test]
    fn the_file_follows_the_format_and_does_not_depend_on_the_order_of_the_tensors() {
        let folder = tempfile::tempdir().unwrap();
        let tensors = vec![
            ("b".to_string(), vec![3], Cow::Owned(vec![1.0, 2.0, 3.0])),
            ("a".to_string(), vec![1, 2], Cow::Owned(vec![-1.0, 0.5])),
        ];
        let (one, two) = (folder.path().join("1"), folder.path().join("2"));
        write_checkpoint(&one, tensors.clone()).unwrap();
        write_checkpoint(&two, tensors.into_iter().rev()).unwrap();
        let bytes = fs::read(&one).unwrap();
        assert_eq!(bytes, fs::read(&two).unwrap());
        let (length, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(length % 8, 0);
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    }

    #[test]
    fn the_existing_files_of_the_tokenizer_are_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["tokenizer.json", "vocab.txt", "notes.txt"] {
            fs::write(from.path().join(name), name).unwrap();
        }
        let copied = copy_tokenizer_files(from.path(), to.path()).unwrap();
        assert_eq!(copied, ["tokenizer.json", "vocab.txt"]);
        assert_eq!(names_in(to.path()), copied);
        assert_eq!(fs::read(to.path().join("vocab.txt")).unwrap(), b"vocab.txt");
        // A folder can be copied onto itself: the open old file stays readable while the new one takes its name.
        copy_tokenizer_files(from.path(), from.path()).unwrap();
        assert_eq!(
            fs::read(from.path().join("vocab.txt")).unwrap(),
            b"vocab.txt"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn what_is_written_is_read_back(shapes in prop::collection::vec(prop::collection::vec(0usize..20, 0..4), 0..6), seed in any::<u32>()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("m.safetensors");
            let tensors: Vec<(String, Vec<usize>, Cow<[f32]>)> = shapes.into_iter().enumerate().map(|(n, shape)| {
                let elements: usize = shape.iter().product();
                let values = (0..elements as u32).map(|i| f32::from_bits(i.wrapping_mul(seed) & 0x7f7f_ffff));
                (format!("t{n}"), shape, Cow::Owned(values.collect()))
            }).collect();
            write_checkpoint(&path, tensors.clone()).unwrap();
            let checkpoint = Checkpoint::open_file(&path).unwrap();
            prop_assert_eq!(checkpoint.names().count(), tensors.len());
            for (name, shape, values) in tensors {
                prop_assert_eq!(checkpoint.read_f32(&name).unwrap(), (shape, values.into_owned()));
            }
        }
    }
}
