//! Reads a GGUF file: its metadata at once, its tensors one at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use mtlora_core::{GROUP, PackedMatrix};

use super::blocks::BlockType;
use super::error::GgufError;

/// The most elements that a list has room for before any of them is read: a damaged file may name any number.
const MOST_AT_ONCE: u64 = 1 << 16;

/// The most dimensions of a tensor.
const MOST_DIMENSIONS: u32 = 4;

/// A value of the metadata. Lists hold texts or numbers; numbers are exact up to 2^53.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum MetaValue {
    Number(f64),
    Flag(bool),
    Text(String),
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

/// A tensor in the file.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    /// The slowest dimension first, as in Hugging Face's files.
    pub shape: Vec<usize>,
    kind: BlockType,
    /// Its first byte in the file.
    start: u64,
}

impl TensorInfo {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn bytes(&self) -> usize {
        let [values, size] = self.kind.sides();
        self.elements() / values * size
    }
}

/// A GGUF file whose metadata has been read.
#[derive(Debug)]
pub(crate) struct GgufFile {
    pub path: PathBuf,
    file: File,
    metadata: BTreeMap<String, MetaValue>,
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// The file's beginning, of which no more is believed than it can hold.
struct Header<'a> {
    path: &'a Path,
    reader: BufReader<&'a File>,
    length: u64,
    at: u64,
}

impl Header<'_> {
    fn damaged(&self, message: &str) -> GgufError {
        GgufError::damaged(self.path, format!("{message} near byte {}", self.at))
    }

    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, GgufError> {
        if count > self.length - self.at {
            return Err(self.damaged("the file ends too early"));
        }
        let mut bytes = vec![0; count as usize];
        let read = self.reader.read_exact(&mut bytes);
        read.map_err(|source| io(self.path, source))?;
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// How many things of at least `least` bytes follow.
    fn count(&mut self, least: u64) -> Result<u64, GgufError> {
        let count = self.u64()?;
        if count > (self.length - self.at) / least {
            return Err(self.damaged("a number of elements is too large"));
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let length = self.u64()?;
        let bytes = self.bytes(length)?;
        String::from_utf8(bytes).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    /// A number of the type with this number in the file.
    fn number(&mut self, kind: u32) -> Result<f64, GgufError> {
        Ok(match kind {
            0 => f64::from(u8::from_le_bytes(self.array()?)),
            1 => f64::from(i8::from_le_bytes(self.array()?)),
            2 => f64::from(u16::from_le_bytes(self.array()?)),
            3 => f64::from(i16::from_le_bytes(self.array()?)),
            4 => f64::from(self.u32()?),
            5 => f64::from(i32::from_le_bytes(self.array()?)),
            6 => f64::from(f32::from_le_bytes(self.array()?)),
            7 => f64::from(u8::from(self.array::<1>()? != [0])),
            10 => self.u64()? as f64,
            11 => i64::from_le_bytes(self.array()?) as f64,
            12 => f64::from_le_bytes(self.array()?),
            _ => return Err(self.damaged("a value has an unknown type")),
        })
    }

    fn value(&mut self) -> Result<MetaValue, GgufError> {
        const FLAG: u32 = 7;
        const TEXT: u32 = 8;
        const LIST: u32 = 9;
        match self.u32()? {
            FLAG => Ok(MetaValue::Flag(self.number(FLAG)? != 0.0)),
            TEXT => Ok(MetaValue::Text(self.text()?)),
            LIST => match self.u32()? {
                TEXT => {
                    let count = self.count(8)?;
                    let mut texts = Vec::with_capacity(count.min(MOST_AT_ONCE) as usize);
                    for _ in 0..count {
                        texts.push(self.text()?);
                    }
                    Ok(MetaValue::Texts(texts))
                }
                kind => {
                    let count = self.count(1)?;
                    let mut numbers = Vec::with_capacity(count.min(MOST_AT_ONCE) as usize);
                    for _ in 0..count {
                        numbers.push(self.number(kind)?);
                    }
                    Ok(MetaValue::Numbers(numbers))
                }
            },
            kind => Ok(MetaValue::Number(self.number(kind)?)),
        }
    }

    /// A tensor's name and what the file says of it; its start is relative to the data.
    fn tensor(&mut self) -> Result<(String, TensorInfo), GgufError> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(self.damaged("a tensor has too many dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = usize::try_from(self.u64()?).ok();
            shape.push(size.ok_or_else(|| self.damaged("a dimension is too large"))?);
        }
        let number = self.u32()?;
        let start = self.u64()?;
        let Some(kind) = BlockType::of(number) else {
            let message = format!(
                "is of the type number {number}, but only F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and \
                 Q6_K are read; take a file in one of these types"
            );
            return Err(GgufError::tensor(self.path, &name, message));
        };
        let row = shape.first().copied().unwrap_or(1);
        let whole = shape
            .iter()
            .try_fold(1usize, |all, size| all.checked_mul(*size));
        if whole.is_none_or(|whole| whole == 0 || whole as u64 / 8 > self.length)
            || !row.is_multiple_of(kind.sides()[0])
        {
            return Err(GgufError::tensor(
                self.path,
                &name,
                "has an impossible size",
            ));
        }
        shape.reverse();
        Ok((name, TensorInfo { shape, kind, start }))
    }
}

fn io(path: &Path, source: std::io::Error) -> GgufError {
    GgufError::Io {
        path: path.to_path_buf(),
        source,
    }
}

impl GgufFile {
    /// Reads the metadata of a file, of which every number is checked against the file's size.
    pub(crate) fn open(path: &Path) -> Result<Self, GgufError> {
        let file = File::open(path).map_err(|source| io(path, source))?;
        let length = file.metadata().map_err(|source| io(path, source))?.len();
        let mut header = Header {
            path,
            reader: BufReader::new(&file),
            length,
            at: 0,
        };
        if header.bytes(4.min(length))? != b"GGUF" {
            return Err(header.damaged("it does not begin with GGUF"));
        }
        let version = header.u32()?;
        if ![2, 3].contains(&version) {
            let message = format!("its version is {version}, and only 2 and 3 are read");
            return Err(GgufError::damaged(path, message));
        }
        // A tensor takes a name's length, a number of dimensions, a type and a place.
        let tensor_count = header.count(24)?;
        // A field takes a name's length, a type and a byte.
        let field_count = header.count(13)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..field_count {
            let name = header.text()?;
            let value = header.value()?;
            if metadata.insert(name, value).is_some() {
                return Err(header.damaged("a field occurs twice"));
            }
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let (name, info) = header.tensor()?;
            if tensors.insert(name, info).is_some() {
                return Err(header.damaged("a tensor occurs twice"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(MetaValue::Number(number)) if *number >= 1.0 && *number <= 65_536.0 => {
                *number as u64
            }
            Some(_) => {
                let message = "must be a number from 1 to 65536";
                return Err(GgufError::field(path, "general.alignment", message));
            }
        };
        let data = header.at.next_multiple_of(alignment);
        let mut all = 0u64;
        for (name, info) in &mut tensors {
            let start = info.start.checked_add(data);
            let end = start.and_then(|start| start.checked_add(info.bytes() as u64));
            // Tensors that lie in each other would take more memory than the file.
            all = all.saturating_add(info.bytes() as u64);
            match (start, end.filter(|end| *end <= length && all <= length)) {
                (Some(start), Some(_)) => info.start = start,
                _ => {
                    return Err(GgufError::tensor(
                        path,
                        name,
                        "does not lie within the file",
                    ));
                }
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            metadata,
            tensors,
        })
    }

    /// The fields of the metadata by their names.
    pub(super) fn metadata(&self) -> &BTreeMap<String, MetaValue> {
        &self.metadata
    }

    fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>, GgufError> {
        let failed = |source| io(&self.path, source);
        let mut bytes = vec![0; info.bytes()];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(info.start)).map_err(failed)?;
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn not_finite(&self, name: &str) -> GgufError {
        let message = "has values that are not finite; the file is damaged, download it again";
        GgufError::tensor(&self.path, name, message)
    }

    /// The values of a tensor of the file, unpacked.
    pub(crate) fn read(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>, GgufError> {
        let values = info.kind.values(self.bytes(info)?);
        if values.iter().any(|value| !value.is_finite()) {
            return Err(self.not_finite(name));
        }
        Ok(values)
    }

    /// A matrix of the file as it is; `None` for other tensors, and for 32-bit floats.
    pub(super) fn packed(
        &self,
        name: &str,
        info: &TensorInfo,
    ) -> Result<Option<PackedMatrix>, GgufError> {
        let (Some(format), [rows, columns]) = (info.kind.packed(), info.shape.as_slice()) else {
            return Ok(None);
        };
        if !columns.is_multiple_of(GROUP) {
            return Ok(None);
        }
        let matrix = PackedMatrix::new(format, [*rows, *columns], self.bytes(info)?);
        let matrix =
            matrix.map_err(|error| GgufError::tensor(&self.path, name, error.to_string()))?;
        if !matrix.is_finite() {
            return Err(self.not_finite(name));
        }
        Ok(Some(matrix))
    }

    fn wrong(&self, field: &str, wanted: &str) -> GgufError {
        let message = match self.metadata.contains_key(field) {
            true => format!("must be {wanted}; download the file again"),
            false => format!("is missing, and must be {wanted}; download the file again"),
        };
        GgufError::field(&self.path, field, message)
    }

    pub(crate) fn number_if_there(&self, field: &str) -> Result<Option<f64>, GgufError> {
        match self.metadata.get(field) {
            None => Ok(None),
            Some(MetaValue::Number(number)) if number.is_finite() => Ok(Some(*number)),
            Some(_) => Err(self.wrong(field, "a finite number")),
        }
    }

    pub(crate) fn number(&self, field: &str) -> Result<f64, GgufError> {
        let found = self.number_if_there(field)?;
        found.ok_or_else(|| self.wrong(field, "a finite number"))
    }

    /// A whole number that is not negative.
    pub(crate) fn size_if_there(&self, field: &str) -> Result<Option<usize>, GgufError> {
        let found = self.number_if_there(field)?;
        let whole = |number: f64| {
            let is_whole = number >= 0.0 && number.fract() == 0.0 && number <= f64::from(u32::MAX);
            is_whole.then_some(number as usize)
        };
        match found.map(whole) {
            Some(None) => Err(self.wrong(field, "a whole number")),
            found => Ok(found.flatten()),
        }
    }

    pub(crate) fn size(&self, field: &str) -> Result<usize, GgufError> {
        let found = self.size_if_there(field)?;
        found.ok_or_else(|| self.wrong(field, "a whole number"))
    }

    pub(crate) fn text_if_there(&self, field: &str) -> Result<Option<&str>, GgufError> {
        match self.metadata.get(field) {
            None => Ok(None),
            Some(MetaValue::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(field, "a text")),
        }
    }

    pub(crate) fn text(&self, field: &str) -> Result<&str, GgufError> {
        let found = self.text_if_there(field)?;
        found.ok_or_else(|| self.wrong(field, "a text"))
    }

    pub(crate) fn texts(&self, field: &str) -> Result<&[String], GgufError> {
        match self.metadata.get(field) {
            Some(MetaValue::Texts(texts)) => Ok(texts),
            _ => Err(self.wrong(field, "a list of texts")),
        }
    }

    pub(crate) fn numbers(&self, field: &str) -> Result<&[f64], GgufError> {
        match self.metadata.get(field) {
            Some(MetaValue::Numbers(numbers)) => Ok(numbers),
            _ => Err(self.wrong(field, "a list of numbers")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Checkpoint;

    fn fixture(name: &str) -> PathBuf {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/gguf");
        Path::new(fixtures).join(name)
    }

    /// A file of version 3 with these fields and no tensors; each field is its name, its type and its bytes.
    fn with_fields(fields: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend((fields.len() as u64).to_le_bytes());
        for (name, kind, value) in fields {
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(*value);
        }
        bytes
    }

    fn open(bytes: &[u8]) -> Result<GgufFile, GgufError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        GgufFile::open(&path)
    }

    /// To the bit, but for the order in which a block's scales are multiplied.
    #[test]
    fn every_type_is_unpacked_as_gguf_py_does() {
        let file = GgufFile::open(&fixture("types.gguf")).unwrap();
        let expected = Checkpoint::open_file(&fixture("types.safetensors")).unwrap();
        assert_eq!(file.tensors.len(), 11);
        for (name, info) in &file.tensors {
            assert_eq!(info.shape, [3, 512], "{name}");
            let found = file.read(name, info).unwrap();
            let (_, wanted) = expected.read_f32(name).unwrap();
            assert_eq!(found.len(), wanted.len());
            for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let apart = (found - wanted).abs();
                assert!(
                    apart <= 2e-6 * wanted.abs().max(1e-2),
                    "{name} {at}: {found} and {wanted}"
                );
            }
        }
    }

    #[test]
    fn values_are_read_by_their_types() {
        let text = [&5u64.to_le_bytes()[..], b"hello"].concat();
        let list = [
            &5u32.to_le_bytes()[..],
            &2u64.to_le_bytes(),
            &(-7i32).to_le_bytes(),
            &9i32.to_le_bytes(),
        ]
        .concat();
        let texts = [&8u32.to_le_bytes()[..], &1u64.to_le_bytes(), &text].concat();
        let file = open(&with_fields(&[
            ("a", 4, &70_000u32.to_le_bytes()),
            ("b", 6, &0.5f32.to_le_bytes()),
            ("c", 8, &text),
            ("d", 9, &list),
            ("e", 9, &texts),
            ("f", 7, &[1]),
            ("g", 1, &(-3i8).to_le_bytes()),
            ("h", 6, &f32::NAN.to_le_bytes()),
        ]))
        .unwrap();
        assert_eq!(file.size("a").unwrap(), 70_000);
        assert_eq!(file.number("b").unwrap(), 0.5);
        assert_eq!(file.text("c").unwrap(), "hello");
        assert_eq!(file.numbers("d").unwrap(), [-7.0, 9.0]);
        assert_eq!(file.texts("e").unwrap(), ["hello"]);
        for (error, field) in [
            (file.size("b").map(|_| ()), "b"),
            (file.size("g").map(|_| ()), "g"),
            (file.number("f").map(|_| ()), "f"),
            (file.number_if_there("h").map(|_| ()), "h"),
            (file.text("missing").map(|_| ()), "missing"),
            (file.texts("d").map(|_| ()), "d"),
        ] {
            let message = error.unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{message}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused_with_a_reason() {
        let most = u64::MAX.to_le_bytes();
        let large = [&4u32.to_le_bytes()[..], &most].concat();
        for (bytes, message) in [
            (b"GGML\x03\0\0\0".to_vec(), "begin with GGUF"),
            (b"GGUF\x09\0\0\0".to_vec(), "version is 9"),
            (b"GGUF".to_vec(), "ends too early"),
            (Vec::new(), "begin with GGUF"),
            (with_fields(&[("a", 8, &most)]), "ends too early"),
            (with_fields(&[("a", 9, &large)]), "too large"),
            (with_fields(&[("a", 99, &[0; 8])]), "unknown type"),
            (with_fields(&[("a", 8, b"\x01\0\0\0\0\0\0\0\xff")]), "UTF-8"),
            (
                with_fields(&[("general.alignment", 4, &[0; 4])]),
                "general.alignment",
            ),
        ] {
            let error = open(&bytes).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        // Tensors whose bytes are not there, or lie in each other.
        let whole = std::fs::read(fixture("types.gguf")).unwrap();
        let error = open(&whole[..whole.len() - 64]).unwrap_err().to_string();
        assert!(error.contains("does not lie within the file"), "{error}");
    }
}
