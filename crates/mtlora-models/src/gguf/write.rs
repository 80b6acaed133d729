//! Writes a GGUF file.

use std::io::{self, Write};
use std::path::Path;

use super::blocks::BlockType;
use crate::error::ModelError;
use crate::files::save::write_through;
use crate::files::tensor_values::TensorValues;

/// Where each tensor begins: at a multiple of this many bytes.
const ALIGNMENT: usize = 32;

/// A value of a GGUF file's metadata.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GgufValue {
    /// A whole number.
    U32(u32),
    /// A 32-bit float.
    F32(f32),
    /// True or false.
    Flag(bool),
    /// A text.
    Text(String),
    /// A list of whole numbers.
    Ints(Vec<i32>),
    /// A list of 32-bit floats.
    Floats(Vec<f32>),
    /// A list of texts.
    Texts(Vec<String>),
}

/// A tensor, whose values are packed when they are written.
#[derive(Debug)]
pub(crate) struct GgufTensor<'a> {
    pub name: String,
    /// The slowest dimension first, as in Hugging Face's files.
    pub shape: Vec<usize>,
    pub kind: BlockType,
    pub values: TensorValues<'a>,
}

/// Writes a file in version 3, whole or not at all.
///
/// # Errors
/// When a tensor's shape and values do not agree, or the file cannot be written.
pub(crate) fn write_gguf(
    path: &Path,
    fields: &[(String, GgufValue)],
    tensors: &[GgufTensor<'_>],
) -> Result<(), ModelError> {
    for tensor in tensors {
        let [block, _] = tensor.kind.sides();
        let row = tensor.shape.last().copied().unwrap_or(1);
        let fits = match &tensor.values {
            TensorValues::Ready(values) => values.len() == tensor.elements(),
            TensorValues::Made(_) => true,
        };
        if !fits || !row.is_multiple_of(block) {
            return Err(ModelError::BadTensor {
                path: path.to_path_buf(),
                name: tensor.name.clone(),
                message: format!(
                    "its shape {:?} does not fit its values or their type",
                    tensor.shape
                ),
            });
        }
    }
    write_through(path, |out| {
        let mut header = Vec::new();
        header.extend_from_slice(b"GGUF");
        header.extend_from_slice(&3u32.to_le_bytes());
        header.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        header.extend_from_slice(&(fields.len() as u64).to_le_bytes());
        for (name, value) in fields {
            text(&mut header, name);
            value.write(&mut header);
        }
        let mut start = 0;
        for tensor in tensors {
            text(&mut header, &tensor.name);
            header.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for size in tensor.shape.iter().rev() {
                header.extend_from_slice(&(*size as u64).to_le_bytes());
            }
            header.extend_from_slice(&tensor.kind.number().to_le_bytes());
            header.extend_from_slice(&(start as u64).to_le_bytes());
            start += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&header)?;
        tensors.iter().try_for_each(|tensor| tensor.write(out))
    })
}

impl GgufTensor<'_> {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn bytes(&self) -> usize {
        let [values, size] = self.kind.sides();
        self.elements() / values * size
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        const CHUNK: usize = 4096;
        let mut bytes = Vec::new();
        let values = self.values.get();
        if values.len() != self.elements() {
            let message = format!("the values of `{}` do not fit its shape", self.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        for values in values.chunks(CHUNK) {
            bytes.clear();
            if !self.kind.pack(values, &mut bytes) {
                return Err(io::ErrorKind::Unsupported.into());
            }
            out.write_all(&bytes)?;
        }
        let filled = self.bytes();
        out.write_all(&vec![0; filled.next_multiple_of(ALIGNMENT) - filled])
    }
}

impl GgufValue {
    fn write(&self, out: &mut Vec<u8>) {
        // The numbers of the types in the file.
        const U32: u32 = 4;
        const F32: u32 = 6;
        const FLAG: u32 = 7;
        const TEXT: u32 = 8;
        const LIST: u32 = 9;
        const I32: u32 = 5;
        let list = |out: &mut Vec<u8>, kind: u32, count: usize| {
            out.extend_from_slice(&LIST.to_le_bytes());
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&(count as u64).to_le_bytes());
        };
        let number = |out: &mut Vec<u8>, number: u32| out.extend_from_slice(&number.to_le_bytes());
        match self {
            GgufValue::U32(value) => {
                number(out, U32);
                number(out, *value);
            }
            GgufValue::F32(value) => {
                number(out, F32);
                number(out, value.to_bits());
            }
            GgufValue::Flag(value) => {
                number(out, FLAG);
                out.push(u8::from(*value));
            }
            GgufValue::Text(value) => {
                number(out, TEXT);
                text(out, value);
            }
            GgufValue::Ints(values) => {
                list(out, I32, values.len());
                out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            GgufValue::Floats(values) => {
                list(out, F32, values.len());
                out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            GgufValue::Texts(values) => {
                list(out, TEXT, values.len());
                values.iter().for_each(|value| text(out, value));
            }
        }
    }
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::borrow::Cow;

    use super::super::file::{GgufFile, MetaValue};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is written is read again: exactly where the type has the values, and else to its precision.
        #[test]
        fn a_written_file_is_read_again(
            rows in 1usize..5, blocks in 1usize..4, scale in 0.01f32..100.0, number: u32,
            word in ".{0,8}",
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("written.gguf");
            let fields = [
                ("a".to_string(), GgufValue::U32(number)),
                ("d".to_string(), GgufValue::F32(scale)),
                ("f".to_string(), GgufValue::Text(word.clone())),
                ("g".to_string(), GgufValue::Texts(vec![word.clone(), "b".to_string()])),
                ("h".to_string(), GgufValue::Ints(vec![-1, number as i32])),
                ("i".to_string(), GgufValue::Floats(vec![scale])),
                ("j".to_string(), GgufValue::Flag(true)),
            ];
            let width = 32 * blocks;
            let values: Vec<f32> = (0..rows * width).map(|at| scale * ((at * 37 % 101) as f32 / 50.0 - 1.0)).collect();
            let kinds = [(BlockType::F32, 0.0), (BlockType::F16, 1e-3), (BlockType::Bf16, 5e-3), (BlockType::Q8_0, 5e-3)];
            let tensors: Vec<GgufTensor<'_>> = kinds.iter().enumerate().map(|(at, (kind, _))| GgufTensor {
                name: format!("t{at}"), shape: vec![rows, width], kind: *kind, values: TensorValues::Ready(Cow::Borrowed(&values)),
            }).collect();
            write_gguf(&path, &fields, &tensors).unwrap();
            let file = GgufFile::open(&path).unwrap();
            prop_assert_eq!(file.size("a").unwrap() as u32, number);
            prop_assert_eq!(file.number("d").unwrap() as f32, scale);
            prop_assert_eq!(file.text("f").unwrap(), &word);
            prop_assert_eq!(file.texts("g").unwrap(), &[word.clone(), "b".to_string()]);
            prop_assert_eq!(file.numbers("h").unwrap(), &[-1.0, f64::from(number as i32)]);
            prop_assert_eq!(file.numbers("i").unwrap(), &[f64::from(scale)]);
            prop_assert_eq!(file.metadata().get("j"), Some(&MetaValue::Flag(true)));
            for (at, (_, error)) in kinds.iter().enumerate() {
                let info = &file.tensors[&format!("t{at}")];
                prop_assert_eq!(&info.shape, &[rows, width]);
                for (found, wanted) in file.read("t", info).unwrap().iter().zip(&values) {
                    prop_assert!((found - wanted).abs() <= error * scale, "{found} for {wanted}");
                }
            }
        }
    }

    #[test]
    fn a_tensor_that_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("written.gguf");
        for (shape, kind) in [(vec![3], BlockType::F32), (vec![2, 1], BlockType::Q8_0)] {
            let values = TensorValues::Ready(Cow::Owned(vec![0.0; 2]));
            let name = "t".to_string();
            let tensor = GgufTensor {
                name,
                shape,
                kind,
                values,
            };
            assert!(write_gguf(&path, &[], &[tensor]).is_err());
            assert!(!path.exists());
        }
    }
}
