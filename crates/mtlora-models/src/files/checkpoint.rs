//! The tensors of a model folder: `model.safetensors`, whole or in parts, else `pytorch_model.bin`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::Mmap;
use mtlora_core::PackedMatrix;
use safetensors::Dtype;
use serde::Deserialize;

use crate::error::ModelError;
use crate::files::pickle::{self, Pickled};
use crate::files::read::{open_file, read_bounded, require_folder};
use crate::files::safetensors_header::{LENGTH_BYTES, read_header};
use crate::gguf::model::{GgufModel, GgufTensorName, is_gguf};
use crate::messages::shown;

/// The tensor file's name in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The name of the list of parts, where the tensors are in several files.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The same of folders from before safetensors, read where there is neither of the above.
pub const PICKLE_FILE: &str = "pytorch_model.bin";
pub const PICKLE_INDEX_FILE: &str = "pytorch_model.bin.index.json";

const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Files of the same model in formats that are not read here.
const OTHER_FORMATS: [&str; 4] = [
    "tf_model.h5",
    "flax_model.msgpack",
    "model.ckpt.index",
    "bert_model.ckpt.index",
];

/// The element types that are read.
const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// The ends of names of tensors that hold no weights: constants that older models saved along.
const CONSTANTS: [&str; 2] = [".position_ids", ".token_type_ids"];

/// The tensors of a model: a tensor is read from disk when it is asked for. Safetensors files are mapped into memory.
///
/// While a checkpoint is open, its files must not be shortened by another program. (This crate never does that: it
/// writes beside and renames.)
pub struct Checkpoint {
    /// The folder, or the one file.
    path: PathBuf,
    files: Vec<TensorFile>,
    tensors: BTreeMap<String, Tensor>,
}

struct TensorFile {
    path: PathBuf,
    /// The mapped file, for safetensors files.
    map: Option<Mmap>,
}

struct Tensor {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
}

enum Bytes {
    /// A range of the mapped file. It has been checked to lie within the file and to have the size of dtype and
    /// shape.
    Mapped(Range<usize>),
    Pickled(Pickled),
    /// A tensor of a GGUF file, by its name there.
    Gguf(Arc<GgufModel>, String),
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Checkpoint({}, {} files, {} tensors)",
            self.path.display(),
            self.files.len(),
            self.tensors.len()
        )
    }
}

impl Checkpoint {
    /// Opens the tensors of a GGUF file, or of a model folder: `model.safetensors`, or else the parts that
    /// `model.safetensors.index.json` lists, or else `pytorch_model.bin` or its parts. Everything the headers say is
    /// checked against the files here. A `.bin` file is a pickle, which is a program; none of it is run: what is not
    /// a tensor is refused or passed over.
    ///
    /// BERT's oldest files call LayerNorm's tensors `gamma` and `beta`; they are `weight` and `bias` here.
    ///
    /// # Errors
    /// No folder; no tensor file, or only one of another format; a file that is truncated, or whose header is
    /// too long, no JSON or untrue; parts that don't fit their index or lie outside of the folder.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        require_folder(folder)?;
        if is_gguf(folder) {
            return Self::open_gguf(folder);
        }
        let whole = folder.join(WEIGHTS_FILE);
        if whole.exists() {
            return Self::open_file(&whole);
        }
        let index = folder.join(INDEX_FILE);
        if index.exists() {
            return Self::open_parts(folder, &index);
        }
        let pickle = folder.join(PICKLE_FILE);
        if pickle.exists() {
            return Self::open_file(&pickle);
        }
        let index = folder.join(PICKLE_INDEX_FILE);
        if index.exists() {
            return Self::open_parts(folder, &index);
        }
        let other = OTHER_FORMATS
            .into_iter()
            .find(|name| folder.join(name).exists());
        let (missing, hint) = match other {
            Some(other) => (
                format!("it has {other}, but no {WEIGHTS_FILE}"),
                "only safetensors files and pytorch_model.bin are read; convert the folder with \
                 Python's transformers, AutoModel.from_pretrained(folder).save_pretrained(folder), or take a \
                 revision of the model that has it"
                    .to_string(),
            ),
            None => (
                format!("it has no {WEIGHTS_FILE}"),
                "give the folder that holds config.json, model.safetensors and tokenizer.json"
                    .to_string(),
            ),
        };
        Err(ModelError::NotAModelFolder {
            folder: folder.to_path_buf(),
            missing,
            hint,
        })
    }

    /// Opens one file with the same checks: as PyTorch's if its name ends in `.bin`, else as safetensors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_file(path: &Path) -> Result<Self, ModelError> {
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        checkpoint.add_file(path)?;
        Ok(checkpoint)
    }

    fn open_gguf(path: &Path) -> Result<Self, ModelError> {
        let (model, names) = GgufModel::open(path)?;
        let model = Arc::new(model);
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for (name, GgufTensorName { stored, shape }) in names {
            let bytes = Bytes::Gguf(Arc::clone(&model), stored);
            checkpoint.add(path, &name, Dtype::F32, shape, bytes)?;
        }
        checkpoint.files.push(TensorFile {
            path: path.to_path_buf(),
            map: None,
        });
        Ok(checkpoint)
    }

    /// A matrix of a GGUF file as it is there, by Hugging Face's name and in its order of rows; `None` where there is no
    /// such matrix that can be kept packed.
    ///
    /// # Errors
    /// As [`Self::read_f32`].
    pub fn packed(&self, name: &str) -> Result<Option<PackedMatrix>, ModelError> {
        match self.tensors.get(name).map(|tensor| &tensor.bytes) {
            Some(Bytes::Gguf(model, stored)) => Ok(model.packed(stored)?),
            _ => Ok(None),
        }
    }

    fn open_parts(folder: &Path, index: &Path) -> Result<Self, ModelError> {
        let bytes = read_bounded(index, MAX_INDEX_BYTES)?;
        let parsed: Index =
            serde_json::from_slice(&bytes).map_err(|error| ModelError::json(index, &error))?;
        let wrong = |message: String| ModelError::Index {
            path: index.to_path_buf(),
            message,
        };
        if parsed.weight_map.is_empty() {
            return Err(wrong("its `weight_map` names no tensor".to_string()));
        }
        let mut checkpoint = Self {
            path: folder.to_path_buf(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        for part in parsed.weight_map.values() {
            numbers.insert(part, 0);
        }
        for (number, (&part, slot)) in numbers.iter_mut().enumerate() {
            *slot = number;
            // An index is somebody else's text, and must not choose files elsewhere on this machine.
            let mut components = Path::new(part).components();
            let inside = !part.is_empty()
                && !part.contains('\\')
                && components.all(|component| matches!(component, Component::Normal(_)));
            if !inside {
                return Err(wrong(format!(
                    "names the part {}, which is not a file inside of the folder",
                    shown(part)
                )));
            }
            let path = folder.join(part);
            if !path.exists() {
                return Err(wrong(format!(
                    "names the part {}, which is not there",
                    shown(part)
                )));
            }
            checkpoint.add_file(&path)?;
        }
        for (name, part) in &parsed.weight_map {
            let there = checkpoint.tensors.get(&current_name(name));
            if there.map(|tensor| tensor.file) != numbers.get(part.as_str()).copied() {
                return Err(wrong(format!(
                    "says that tensor {} is in {}, which does not hold it",
                    shown(name),
                    shown(part)
                )));
            }
        }
        Ok(checkpoint)
    }

    /// Adds the tensors of a file.
    fn add_file(&mut self, path: &Path) -> Result<(), ModelError> {
        let is_pickle = path.extension().is_some_and(|ending| ending == "bin");
        if is_pickle {
            self.add_pickle(path)
        } else {
            self.add_safetensors(path)
        }
    }

    fn add_pickle(&mut self, path: &Path) -> Result<(), ModelError> {
        for pickled in pickle::open(path)? {
            let (name, shape) = (pickled.name().to_string(), pickled.shape().to_vec());
            let dtype = pickled.dtype();
            self.add(path, &name, dtype, shape, Bytes::Pickled(pickled))?;
        }
        self.files.push(TensorFile {
            path: path.to_path_buf(),
            map: None,
        });
        Ok(())
    }

    /// Adds a tensor of the file that is added next.
    fn add(
        &mut self,
        path: &Path,
        name: &str,
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: Bytes,
    ) -> Result<(), ModelError> {
        let name = current_name(name);
        let tensor = Tensor {
            file: self.files.len(),
            dtype,
            shape,
            bytes,
        };
        match self.tensors.insert(name.clone(), tensor) {
            None => Ok(()),
            Some(_) => Err(ModelError::corrupt(
                path,
                format!("tensor {} is there twice", shown(&name)),
            )),
        }
    }

    /// Maps a file and adds its tensors.
    fn add_safetensors(&mut self, path: &Path) -> Result<(), ModelError> {
        let (file, length) = open_file(path)?;
        if length < LENGTH_BYTES as u64 {
            return Err(ModelError::corrupt(
                path,
                format!("it ends after {length} bytes"),
            ));
        }
        // SAFETY: the map is only read. The one thing that makes reading it unsound is another process changing or
        // shortening the file meanwhile, which the type's documentation forbids and which this crate's own writers,
        // renaming complete files into place, never do.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| ModelError::io(path, source))?;
        for (name, info, bytes) in read_header(path, &map)? {
            self.add(path, &name, info.dtype, info.shape, Bytes::Mapped(bytes))?;
        }
        self.files.push(TensorFile {
            path: path.to_path_buf(),
            map: Some(map),
        });
        Ok(())
    }

    /// The folder that was opened, or the one file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Leaves out the tensors whose names `unwanted` accepts, as if the files did not have them.
    pub fn exclude(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !unwanted(name));
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// A tensor's element type, as the file names it: `F32`, `BF16`, `I64`...
    pub fn dtype(&self, name: &str) -> Option<String> {
        self.tensors
            .get(name)
            .map(|tensor| tensor.dtype.to_string())
    }

    /// Checks names and shapes before anything is read: every tensor in `expected` must be there with its shape, and
    /// nothing else, but for constants (`position_ids`, `token_type_ids`) and names that `ignored` accepts.
    ///
    /// # Errors
    /// The list of the missing tensors, or of the unexpected ones, or the first wrong shape.
    pub fn check<'a>(
        &self,
        expected: impl IntoIterator<Item = (&'a str, &'a [usize])>,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<(), ModelError> {
        let expected: BTreeMap<&str, &[usize]> = expected.into_iter().collect();
        let missing = expected.keys().filter(|name| !self.contains(name));
        let names: Vec<String> = missing.map(ToString::to_string).collect();
        if !names.is_empty() {
            return Err(self.missing(names));
        }
        let unexpected = self.names().filter(|name| {
            let constant = CONSTANTS.iter().any(|end| name.ends_with(end));
            !expected.contains_key(name) && !constant && !ignored(name)
        });
        let names: Vec<String> = unexpected.map(ToString::to_string).collect();
        if !names.is_empty() {
            return Err(ModelError::UnexpectedTensors {
                path: self.path.clone(),
                names,
            });
        }
        for (name, shape) in expected {
            self.find(name, shape)?;
        }
        Ok(())
    }

    /// A tensor as 32-bit floats, in row-major order, with its shape.
    ///
    /// # Errors
    /// No such tensor; elements that are not F32, F16 or BF16, or not finite.
    pub fn read_f32(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), ModelError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| self.missing(vec![name.to_string()]))?;
        Ok((tensor.shape.clone(), self.values(name, tensor)?))
    }

    /// A tensor as 32-bit floats, which must have the shape `expected`.
    ///
    /// # Errors
    /// As [`Self::read_f32`], and another shape.
    pub fn read_shaped(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, ModelError> {
        let tensor = self.find(name, expected)?;
        self.values(name, tensor)
    }

    /// Whether two tensors exist and have the same shape and values.
    ///
    /// # Errors
    /// As [`Self::read_f32`].
    pub fn is_equal(&self, one: &str, other: &str) -> Result<bool, ModelError> {
        if self.shape(one) != self.shape(other) {
            return Ok(false);
        }
        // The usual case, in which neither is made into numbers.
        if let (Some(one), Some(other)) = (self.tensors.get(one), self.tensors.get(other))
            && one.dtype == other.dtype
            && let (Some(bytes), Some(others)) = (self.mapped(one), self.mapped(other))
            && bytes == others
        {
            self.release(one);
            self.release(other);
            return Ok(true);
        }
        Ok(self.read_f32(one)? == self.read_f32(other)?)
    }

    /// The bytes of a tensor of a safetensors file.
    fn mapped(&self, tensor: &Tensor) -> Option<&[u8]> {
        match &tensor.bytes {
            Bytes::Pickled(_) | Bytes::Gguf(..) => None,
            Bytes::Mapped(range) => {
                let file = self.files.get(tensor.file)?;
                file.map.as_ref()?.get(range.clone())
            }
        }
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<&Tensor, ModelError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| self.missing(vec![name.to_string()]))?;
        if tensor.shape != expected {
            return Err(ModelError::WrongShape {
                path: self.file_path(tensor).to_path_buf(),
                name: name.to_string(),
                expected: expected.to_vec(),
                found: tensor.shape.clone(),
            });
        }
        Ok(tensor)
    }

    fn missing(&self, names: Vec<String>) -> ModelError {
        ModelError::MissingTensors {
            path: self.path.clone(),
            names,
        }
    }

    fn file_path(&self, tensor: &Tensor) -> &Path {
        self.files
            .get(tensor.file)
            .map_or(&self.path, |file| &file.path)
    }

    fn values(&self, name: &str, tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
        let outside = || {
            let message = format!("tensor {} lies outside of it", shown(name));
            ModelError::corrupt(self.file_path(tensor), message)
        };
        let read;
        let bytes: &[u8] = match &tensor.bytes {
            Bytes::Gguf(model, stored) => return Ok(model.values(stored)?),
            // Other types are refused below, without reading them.
            Bytes::Pickled(_) if !FLOATS.contains(&tensor.dtype) => &[],
            Bytes::Pickled(pickled) => {
                read = pickled.read(self.file_path(tensor))?;
                &read
            }
            Bytes::Mapped(_) => self.mapped(tensor).ok_or_else(outside)?,
        };
        let values: Vec<f32> = match tensor.dtype {
            Dtype::F32 => convert(bytes, f32::from_le_bytes),
            Dtype::F16 => convert(bytes, |pair| f16::from_le_bytes(pair).to_f32()),
            Dtype::BF16 => convert(bytes, |pair| bf16::from_le_bytes(pair).to_f32()),
            other => {
                return Err(ModelError::UnsupportedDtype {
                    path: self.file_path(tensor).to_path_buf(),
                    name: name.to_string(),
                    dtype: other.to_string(),
                });
            }
        };
        if let Some((index, &value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(ModelError::NonFinite {
                path: self.file_path(tensor).to_path_buf(),
                name: name.to_string(),
                index,
                value,
            });
        }
        self.release(tensor);
        Ok(values)
    }

    /// Gives the memory of a tensor back that has been read: a whole model's would add up to its size.
    fn release(&self, tensor: &Tensor) {
        #[cfg(unix)]
        if let Bytes::Mapped(range) = &tensor.bytes
            && let Some(map) = self
                .files
                .get(tensor.file)
                .and_then(|file| file.map.as_ref())
        {
            // SAFETY: the map is of a file and never written to, so that pages that are dropped come back
            // from the file when they are read again. A failure changes nothing.
            let _ = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
        }
        #[cfg(not(unix))]
        let _ = tensor;
    }
}

/// Little-endian elements of `N` bytes each.
fn convert<const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|&bytes| element(bytes))
        .collect()
}

/// The name that a tensor has today.
fn current_name(name: &str) -> String {
    for (old, new) in [
        ("LayerNorm.gamma", "LayerNorm.weight"),
        ("LayerNorm.beta", "LayerNorm.bias"),
    ] {
        if let Some(module) = name.strip_suffix(old) {
            return format!("{module}{new}");
        }
    }
    name.to_string()
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::testing::allocations::thread_peak_of;
    use proptest::prelude::*;
    use safetensors::tensor::{SafeTensors, TensorView, serialize};
    use std::fs;

    type CheckpointLayout<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

    fn bytes_of(tensors: &[CheckpointLayout]) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (*name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        serialize(views, None).unwrap()
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// A file with every kind of tensor that matters.
    fn sample() -> Vec<u8> {
        let halves = [0.5f32, -2.0, 65504.0, 6.0e-8].map(f16::from_f32);
        let brains = [0.5f32, -2.0, 3.0e38].map(bf16::from_f32);
        bytes_of(&[
            (
                "a",
                Dtype::F32,
                vec![2, 3],
                f32s(&[1.0, 2.0, -3.5, 0.0, 1e-40, 6.0]),
            ),
            (
                "b.LayerNorm.gamma",
                Dtype::F16,
                vec![4],
                halves.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
            (
                "b.LayerNorm.beta",
                Dtype::BF16,
                vec![3, 1],
                brains.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
            (
                "embeddings.position_ids",
                Dtype::I64,
                vec![1, 2],
                vec![0; 16],
            ),
            ("empty", Dtype::F32, vec![0, 7], vec![]),
            ("scalar", Dtype::F32, vec![], f32s(&[4.25])),
        ])
    }

    fn folder_with(name: &str, bytes: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
        folder
    }

    fn open_bytes(bytes: &[u8]) -> Result<Checkpoint, ModelError> {
        let folder = folder_with(WEIGHTS_FILE, bytes);
        Checkpoint::open(folder.path())
    }

    /// A file with this header and data, whatever they say.
    fn raw(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        let error = open_bytes(bytes).unwrap_err();
        assert!(matches!(error, ModelError::Corrupt { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn every_float_type_is_read_and_old_names_are_renamed() {
        let checkpoint = open_bytes(&sample()).unwrap();
        let names: Vec<&str> = checkpoint.names().collect();
        assert_eq!(
            names,
            [
                "a",
                "b.LayerNorm.bias",
                "b.LayerNorm.weight",
                "embeddings.position_ids",
                "empty",
                "scalar"
            ]
        );
        assert_eq!(
            checkpoint.read_f32("a").unwrap(),
            (vec![2, 3], vec![1.0, 2.0, -3.5, 0.0, 1e-40, 6.0])
        );
        let (shape, values) = checkpoint.read_f32("b.LayerNorm.weight").unwrap();
        assert_eq!(shape, [4]);
        // 6e-8 is the smallest half, 2^-24.
        assert_eq!(values, [0.5, -2.0, 65504.0, 2f32.powi(-24)]);
        let (shape, values) = checkpoint.read_f32("b.LayerNorm.bias").unwrap();
        assert_eq!(shape, [3, 1]);
        assert_eq!(values[..2], [0.5, -2.0]);
        assert!((values[2] / 3.0e38 - 1.0).abs() < 1.0 / 256.0);
        assert_eq!(checkpoint.read_f32("empty").unwrap(), (vec![0, 7], vec![]));
        assert_eq!(checkpoint.read_f32("scalar").unwrap(), (vec![], vec![4.25]));
        assert_eq!(checkpoint.dtype("b.LayerNorm.bias").unwrap(), "BF16");
        assert_eq!(checkpoint.shape("a"), Some([2, 3].as_slice()));
        assert!(!checkpoint.contains("b.LayerNorm.gamma"));
    }

    #[test]
    fn other_types_are_refused_by_name_but_only_when_read() {
        let checkpoint = open_bytes(&sample()).unwrap();
        let error = checkpoint.read_f32("embeddings.position_ids").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("tensor `embeddings.position_ids` is of type I64, but only F32, F16 and BF16 are supported"),
            "{error}"
        );
    }

    #[test]
    fn names_and_shapes_are_checked_before_reading() {
        let checkpoint = open_bytes(&sample()).unwrap();
        let all: [(&str, &[usize]); 4] = [
            ("a", &[2, 3]),
            ("b.LayerNorm.bias", &[3, 1]),
            ("b.LayerNorm.weight", &[4]),
            ("scalar", &[]),
        ];
        checkpoint.check(all, |name| name == "empty").unwrap();
        let error = checkpoint.check(all, |_| false).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("1 tensor is unexpected: `empty`;"),
            "{error}"
        );
        let more = all
            .into_iter()
            .chain([("x", [1].as_slice()), ("y", [1].as_slice())]);
        let error = checkpoint.check(more, |_| true).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("2 tensors are missing: `x`, `y`;"),
            "{error}"
        );
        let error = checkpoint
            .check([("a", [3, 2].as_slice())], |_| true)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("tensor `a` has shape [2, 3], but config.json asks for [3, 2];"),
            "{error}"
        );
        assert!(checkpoint.read_shaped("a", &[6]).is_err());
        assert_eq!(checkpoint.read_shaped("a", &[2, 3]).unwrap().len(), 6);
        assert!(matches!(
            checkpoint.read_f32("x"),
            Err(ModelError::MissingTensors { .. })
        ));
    }

    #[test]
    fn tensors_are_equal_by_shape_and_value_whatever_their_type() {
        let halves = |values: &[f32]| -> Vec<u8> {
            let halves = values.iter().map(|value| f16::from_f32(*value));
            halves.flat_map(f16::to_le_bytes).collect()
        };
        let checkpoint = open_bytes(&bytes_of(&[
            ("one", Dtype::F32, vec![2, 1], f32s(&[0.5, 0.0])),
            ("same", Dtype::F32, vec![2, 1], f32s(&[0.5, 0.0])),
            ("signed", Dtype::F32, vec![2, 1], f32s(&[0.5, -0.0])),
            ("half", Dtype::F16, vec![2, 1], halves(&[0.5, 0.0])),
            ("other", Dtype::F32, vec![2, 1], f32s(&[0.5, 1e-40])),
            ("turned", Dtype::F32, vec![1, 2], f32s(&[0.5, 0.0])),
            ("whole", Dtype::I64, vec![2, 1], vec![0; 16]),
        ]))
        .unwrap();
        for equal in ["one", "same", "signed", "half"] {
            assert!(checkpoint.is_equal("one", equal).unwrap(), "{equal}");
            assert!(checkpoint.is_equal(equal, "one").unwrap(), "{equal}");
        }
        for other in ["other", "turned"] {
            assert!(!checkpoint.is_equal("one", other).unwrap(), "{other}");
        }
        assert!(checkpoint.is_equal("one", "whole").is_err());
        assert!(!checkpoint.is_equal("one", "nowhere").unwrap());
    }

    #[test]
    fn a_weight_that_is_not_finite_is_refused_with_its_place() {
        for (dtype, data) in [
            (Dtype::F32, f32s(&[0.0, f32::NAN])),
            (
                Dtype::F16,
                [f16::ONE, f16::INFINITY]
                    .iter()
                    .flat_map(|v| v.to_le_bytes())
                    .collect(),
            ),
            (
                Dtype::BF16,
                [bf16::ONE, bf16::NEG_INFINITY]
                    .iter()
                    .flat_map(|v| v.to_le_bytes())
                    .collect(),
            ),
        ] {
            let checkpoint = open_bytes(&bytes_of(&[("w", dtype, vec![2], data)])).unwrap();
            let error = checkpoint.read_f32("w").unwrap_err();
            assert!(
                matches!(error, ModelError::NonFinite { index: 1, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let bytes = sample();
        for length in 0..bytes.len() {
            refusal(&bytes[..length]);
        }
        assert!(refusal(&bytes[..bytes.len() - 1]).contains("truncated: tensor"));
        assert!(refusal(&bytes[..40]).contains("truncated: the header is"));
        assert!(refusal(&bytes[..3]).contains("ends after 3 bytes"));
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let one = |shape: &str, begin: u64, end: u64| {
            format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#)
        };
        assert!(open_bytes(&raw(&one("[2]", 0, 8), 8)).is_ok());
        for (bytes, why) in [
            (raw(&one("[2]", 0, 8), 9), "accounts for 8 bytes"),
            (raw(&one("[3]", 0, 8), 8), "not what type F32 and shape"),
            (raw(&one("[2]", 4, 12), 12), "the one before it ends at 0"),
            (raw(&one("[2]", 8, 0), 8), "the one before it ends at 0"),
            (
                raw(&one("[4294967296,4294967296]", 0, 0), 0),
                "not what type F32 and shape",
            ),
            (
                raw(&one("[-1]", 0, 8), 8),
                "its header is wrong: tensor `w`",
            ),
            (
                raw(&one("[2]", 0, 8).replace("F32", "F31"), 8),
                "tensor `w`: unknown variant `F31`",
            ),
            (raw("[]", 0), "expected an object of tensors"),
            (raw("{", 0), "its header is wrong: EOF"),
            (raw(r#"{"w":1}"#, 0), "tensor `w`"),
            (
                u64::MAX.to_le_bytes().to_vec(),
                "18446744073709551615 bytes long, but 100000000 are the most",
            ),
        ] {
            let text = refusal(&bytes);
            assert!(text.contains(why), "{text}");
        }
        let twice = |first: [u64; 2], second: [u64; 2]| {
            let entry = |name, [begin, end]: [u64; 2]| {
                format!(
                    r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#,
                    end - begin
                )
            };
            format!("{{{},{}}}", entry("v", first), entry("w", second))
        };
        assert!(open_bytes(&raw(&twice([0, 4], [4, 8]), 8)).is_ok());
        assert!(
            refusal(&raw(&twice([0, 6], [4, 8]), 8))
                .contains("tensor `w` is said to be at bytes 4 to 8")
        );
        assert!(refusal(&raw(&twice([0, 2], [4, 8]), 8)).contains("the one before it ends at 2"));
        // Eight of these would wrap the address space round to a sum that fits.
        let huge = 1u64 << 63;
        assert!(refusal(&raw(&twice([0, huge], [huge, u64::MAX]), 8)).contains("not what type"));
        let same = raw(&twice([0, 4], [4, 8]).replace("\"v\"", "\"w\""), 8);
        assert!(refusal(&same).contains("tensor `w` is there twice"));
    }

    #[test]
    fn a_hostile_header_takes_a_few_times_its_size() {
        let many = |entry: &dyn Fn(usize) -> String| {
            let entries: Vec<String> = (0..20_000).map(entry).collect();
            raw(&format!("{{{}}}", entries.join(",")), 0)
        };
        let deep = "[".repeat(1_000_000);
        for bytes in [
            many(&|n| format!(r#""{n}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)),
            raw(
                &format!(
                    r#"{{"w":{{"dtype":"U8","shape":[0{}],"data_offsets":[0,0]}}}}"#,
                    ",0".repeat(500_000)
                ),
                0,
            ),
            raw(&format!(r#"{{"w":{deep}"#), 0),
            raw(&format!(r#"{{"__metadata__":{deep}"#), 0),
            // The length alone must not be believed.
            raw("{}", 0)
                .into_iter()
                .enumerate()
                .map(|(i, b)| if i == 3 { 5 } else { b })
                .collect(),
        ] {
            let folder = folder_with(WEIGHTS_FILE, &bytes);
            let (_, peak) = thread_peak_of(|| Checkpoint::open(folder.path()).map(|_| ()));
            assert!(
                peak < 10 * bytes.len() + 10_000,
                "{peak} for {} bytes",
                bytes.len()
            );
        }
    }

    #[test]
    fn parts_are_put_together() {
        let folder = tempfile::tempdir().unwrap();
        let part = |name: &str, tensor: &str, value: f32| {
            let bytes = bytes_of(&[(tensor, Dtype::F32, vec![1], f32s(&[value]))]);
            fs::write(folder.path().join(name), bytes).unwrap();
        };
        part("model-1.safetensors", "x", 1.0);
        part("model-2.safetensors", "y.LayerNorm.gamma", 2.0);
        let index = |map: &str| {
            let text = format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{map}}}"#);
            fs::write(folder.path().join(INDEX_FILE), text).unwrap();
            Checkpoint::open(folder.path())
        };
        let good = r#"{"x":"model-1.safetensors","y.LayerNorm.gamma":"model-2.safetensors"}"#;
        let checkpoint = index(good).unwrap();
        assert_eq!(checkpoint.read_f32("x").unwrap().1, [1.0]);
        assert_eq!(checkpoint.read_f32("y.LayerNorm.weight").unwrap().1, [2.0]);

        let outside = folder.path().join("model-1.safetensors");
        for (map, why) in [
            (
                good.replace("\"x\"", "\"z\""),
                "says that tensor `z` is in `model-1.safetensors`, which does not hold it",
            ),
            (
                r#"{"x":"model-2.safetensors","y.LayerNorm.gamma":"model-1.safetensors"}"#.into(),
                "does not hold it",
            ),
            (
                good.replace("model-2", "model-3"),
                "names the part `model-3.safetensors`, which is not there",
            ),
            (
                good.replace("model-2", "../model-2"),
                "not a file inside of the folder",
            ),
            (
                good.replace("model-2", "./../model-2"),
                "not a file inside of the folder",
            ),
            (
                good.replace("model-2", "..\\\\model-2"),
                "not a file inside of the folder",
            ),
            (
                format!(r#"{{"x":{:?}}}"#, outside),
                "not a file inside of the folder",
            ),
            (r#"{"x":""}"#.into(), "not a file inside of the folder"),
            ("{}".into(), "names no tensor"),
        ] {
            let error = index(&map).unwrap_err();
            assert!(matches!(error, ModelError::Index { .. }), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(matches!(
            index("3").unwrap_err(),
            ModelError::Json { line: 1, .. }
        ));
        part("model-2.safetensors", "x", 2.0);
        let error = index(r#"{"x":"model-1.safetensors","y":"model-2.safetensors"}"#).unwrap_err();
        assert!(
            error.to_string().contains("tensor `x` is there twice"),
            "{error}"
        );
    }

    #[test]
    fn folders_without_safetensors_are_told_the_way_out() {
        let folder = folder_with("tf_model.h5", b"x");
        let text = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(
            text.contains("it has tf_model.h5, but no model.safetensors; "),
            "{text}"
        );
        assert!(text.contains("save_pretrained"), "{text}");
        let empty = tempfile::tempdir().unwrap();
        let text = Checkpoint::open(empty.path()).unwrap_err().to_string();
        assert!(
            text.contains("is not a model folder: it has no model.safetensors; "),
            "{text}"
        );
        assert!(Checkpoint::open(&empty.path().join("nowhere")).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        /// Whatever is done to a file: no panic, bounded memory, and what is accepted is what the format's own
        /// library reads there.
        #[test]
        fn mutated_files_are_refused_or_read_as_they_are(
            changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), b'0'..=b'9']), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
            added in 0usize..3,
        ) {
            let mut bytes = sample();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes.extend(std::iter::repeat_n(b'1', added));
            let folder = folder_with(WEIGHTS_FILE, &bytes);
            let (opened, peak) = thread_peak_of(|| Checkpoint::open(folder.path()));
            prop_assert!(peak < 10 * bytes.len() + 10_000, "{} bytes for {}", peak, bytes.len());
            if let Ok(checkpoint) = opened {
                let reference = SafeTensors::deserialize(&bytes).unwrap();
                prop_assert_eq!(reference.len(), checkpoint.names().count());
                for (name, view) in reference.iter() {
                    let name = current_name(name);
                    prop_assert_eq!(checkpoint.shape(&name), Some(view.shape()));
                    let (read, peak) = thread_peak_of(|| checkpoint.read_f32(&name));
                    prop_assert!(peak <= 2 * bytes.len() + 1000);
                    if let (Ok((_, values)), Dtype::F32) = (read, view.dtype()) {
                        prop_assert_eq!(f32s(&values), view.data());
                    }
                }
            }
        }

        /// Headers of the right form whose numbers are anything.
        #[test]
        fn any_header_is_refused_or_true(
            tensors in prop::collection::vec((
                prop::collection::vec(prop_oneof![0u64..4, any::<u64>(), Just(1 << 61)], 0..3),
                prop_oneof![0u64..32, any::<u64>(), Just(1 << 63)],
                prop_oneof![0u64..32, any::<u64>(), Just(1 << 63)],
                prop::sample::select(vec!["F32", "F16", "U8", "F4", "F64", "BOOL"]),
            ), 0..5),
            data in 0usize..64,
        ) {
            let entries: Vec<String> = tensors.iter().enumerate().map(|(n, (shape, begin, end, dtype))| {
                format!(r#""{n}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
            }).collect();
            let bytes = raw(&format!("{{{}}}", entries.join(",")), data);
            if let Ok(checkpoint) = open_bytes(&bytes) {
                prop_assert!(SafeTensors::deserialize(&bytes).is_ok());
                for name in checkpoint.names() {
                    let _ = checkpoint.read_f32(name);
                }
            }
        }
    }
}
