//! Reads `pytorch_model.bin`, which holds tensors in a pickle. A pickle is a program, and Python runs it.
//! `pytorch-reader` interprets only the instructions that rebuild tensors and cannot call anything; this module checks
//! its results against the file's size.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use pytorch_reader::{DType, PytorchReader, Tensor};
use safetensors::Dtype;
use zip::{CompressionMethod, ZipArchive};

use crate::error::ModelError;
use crate::files::read::open_file;
use crate::messages::shown;

/// The largest pickle in a ZIP archive, in bytes. The pickle of a model with ten thousand tensors has one million.
const MOST_PICKLE: u64 = 4 << 20;
/// The position of the magic bytes in a TAR header.
const TAR_MARK: usize = 257;

/// A tensor of a pickle whose elements have not been read yet.
pub(crate) struct Pickled(Tensor);

impl Pickled {
    /// Its name in the file.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Its element type.
    pub(crate) fn dtype(&self) -> Dtype {
        element_type(self.0.dtype())
    }

    /// Its shape.
    pub(crate) fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// The bytes of its elements, little-endian, in row-major order.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, ModelError> {
        self.0
            .read()
            .map_err(|error| ModelError::corrupt(path, error.to_string()))
    }
}

/// The tensors of a file.
///
/// # Errors
/// When the file was not written by `torch.save`, when it holds objects that could only be made by running code, or
/// when a tensor has more bytes than the file.
pub(crate) fn open(path: &Path) -> Result<Vec<Pickled>, ModelError> {
    let corrupt = |message: String| ModelError::corrupt(path, message);
    if cfg!(target_endian = "big") {
        return Err(corrupt(
            "PyTorch files are not supported on big-endian machines".to_string(),
        ));
    }
    let (file, length) = open_file(path)?;
    refuse_inflated(file).map_err(corrupt)?;
    let reader = PytorchReader::new(path).map_err(|error| {
        corrupt(format!(
            "it holds something other than tensors, or is damaged: {}; no code in it was run",
            shown(&error.to_string())
        ))
    })?;
    let mut tensors = Vec::with_capacity(reader.len());
    for tensor in reader.into_tensors().into_values() {
        // A view can repeat an element any number of times.
        if tensor.byte_len() as u64 > length {
            return Err(corrupt(format!(
                "tensor {} would have {} bytes, more than the {length} of the whole file",
                shown(&tensor.name),
                tensor.byte_len()
            )));
        }
        tensors.push(Pickled(tensor));
    }
    Ok(tensors)
}

/// Refuses a file whose contents could take far more memory than the file has bytes; `torch.save` does not compress.
fn refuse_inflated(mut file: File) -> Result<(), String> {
    let mut header = Vec::new();
    let read = Read::by_ref(&mut file).take(512).read_to_end(&mut header);
    read.and_then(|_| file.rewind())
        .map_err(|error| error.to_string())?;
    if header
        .get(TAR_MARK..)
        .is_some_and(|mark| mark.starts_with(b"ustar"))
    {
        return Err(
            "it is a TAR archive, which only the first versions of PyTorch wrote; load it in PyTorch and save it \
             again".to_string(),
        );
    }
    if !header.starts_with(b"PK") {
        return Ok(());
    }
    let mut archive = ZipArchive::new(file).map_err(|error| error.to_string())?;
    for index in 0..archive.len() {
        let entry = archive
            .by_index_raw(index)
            .map_err(|error| error.to_string())?;
        let name = entry.name().map_err(|error| error.to_string())?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!(
                "its entry {} is compressed, which torch.save never does",
                shown(&name)
            ));
        }
        if name.ends_with("data.pkl") && entry.size() > MOST_PICKLE {
            return Err(format!(
                "its entry {} has {} bytes; no model needs more than {MOST_PICKLE}",
                shown(&name),
                entry.size()
            ));
        }
    }
    Ok(())
}

fn element_type(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::PathBuf;

    use crate::Checkpoint;
    use crate::testing::allocations::thread_peak_of;

    /// Files that torch.save wrote; make.py in the same folder made them.
    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pickle"
        ))
        .join(name)
    }

    fn refusal(name: &str) -> String {
        Checkpoint::open_file(&fixture(name))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn both_pytorch_formats_are_read() {
        for file in ["zip.bin", "legacy.bin"] {
            let checkpoint = Checkpoint::open_file(&fixture(file)).unwrap();
            let grid = vec![-0.5, -0.25, 0.0, 0.25, 0.5, 0.75];
            for (name, shape, values) in [
                ("embeddings.weight", vec![2, 3], grid.clone()),
                (
                    "transposed.weight",
                    vec![3, 2],
                    vec![-0.5, 0.25, -0.25, 0.5, 0.0, 0.75],
                ),
                ("part.weight", vec![3], grid[3..].to_vec()),
                ("lm_head.weight", vec![2, 2], vec![0.0, 1.0, 2.0, 3.0]),
                ("tied.weight", vec![2, 2], vec![0.0, 1.0, 2.0, 3.0]),
                ("b.LayerNorm.weight", vec![3], vec![0.5, -2.0, 65504.0]),
                ("b.LayerNorm.bias", vec![3], vec![0.5, -2.0, 3.0]),
                ("scalar", vec![], vec![4.25]),
                ("parameter", vec![2], vec![1.0, 1.0]),
            ] {
                assert_eq!(
                    checkpoint.read_f32(name).unwrap(),
                    (shape, values),
                    "{file} {name}"
                );
            }
            assert_eq!(checkpoint.names().count(), 10);
            let error = checkpoint.read_f32("embeddings.position_ids").unwrap_err();
            assert!(error.to_string().contains("is of type I64"), "{error}");
        }
        let checkpoint = Checkpoint::open_file(&fixture("nan.bin")).unwrap();
        let error = checkpoint.read_f32("nan").unwrap_err().to_string();
        assert!(error.contains("holds NaN at element 1"), "{error}");
    }

    #[test]
    fn no_code_is_run() {
        // Results of function calls are skipped; the tensors next to them are read.
        for (file, expected) in [("evil.bin", vec!["weight"]), ("evil-plain.bin", vec![])] {
            let checkpoint = Checkpoint::open_file(&fixture(file)).unwrap();
            assert_eq!(checkpoint.names().collect::<Vec<_>>(), expected, "{file}");
        }
        assert!(!PathBuf::from("/tmp/mtlora-was-here").exists());
    }

    #[test]
    fn a_tensor_larger_than_its_file_is_refused() {
        let (text, peak) = thread_peak_of(|| refusal("wide.bin"));
        assert!(
            text.contains("tensor `wide` would have 4294967296 bytes, more than the"),
            "{text}"
        );
        assert!(peak < 1 << 18, "{peak}");
    }

    #[test]
    fn a_file_that_would_take_more_memory_than_its_size_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pytorch_model.bin");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Checkpoint::open_file(&path).unwrap_err().to_string()
        };
        // An entry of a TAR can claim to have 2^40 bytes of zeros.
        let mut tar = vec![0; 1024];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(refused(&tar).contains("it is a TAR"));

        // 100 MiB of zeros compress to 100 KiB.
        let zipped = |method, size| {
            let mut bytes = std::io::Cursor::new(Vec::new());
            let mut writer = zip::ZipWriter::new(&mut bytes);
            let options = zip::write::SimpleFileOptions::default().compression_method(method);
            writer.start_file("archive/data.pkl", options).unwrap();
            std::io::Write::write_all(&mut writer, &vec![b'N'; size]).unwrap();
            writer.finish().unwrap();
            bytes.into_inner()
        };
        let text = refused(&zipped(zip::CompressionMethod::Deflated, 1 << 20));
        assert!(
            text.contains("its entry `archive/data.pkl` is compressed"),
            "{text}"
        );
        let text = refused(&zipped(zip::CompressionMethod::Stored, (4 << 20) + 1));
        assert!(text.contains("no model needs more"), "{text}");
    }

    #[test]
    fn a_folder_with_a_pickle_is_a_model_folder() {
        let folder = tempfile::tempdir().unwrap();
        let copy = |from: &str, to: &str| {
            fs::copy(fixture(from), folder.path().join(to))
                .map(|_| ())
                .unwrap()
        };
        copy("zip.bin", "pytorch_model.bin");
        assert!(Checkpoint::open(folder.path()).unwrap().contains("scalar"));
        fs::rename(
            folder.path().join("pytorch_model.bin"),
            folder.path().join("part.bin"),
        )
        .unwrap();
        let names = Checkpoint::open_file(&fixture("zip.bin")).unwrap();
        let map: Vec<String> = names
            .names()
            .map(|name| format!("{name:?}:\"part.bin\""))
            .collect();
        let index = format!("{{\"weight_map\":{{{}}}}}", map.join(","));
        fs::write(folder.path().join("pytorch_model.bin.index.json"), index).unwrap();
        assert!(Checkpoint::open(folder.path()).unwrap().contains("scalar"));
        // The pickle is not read if there is a safetensors file.
        fs::write(folder.path().join("model.safetensors"), b"damaged").unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }

    #[test]
    fn a_truncated_file_is_refused_or_gives_only_complete_tensors() {
        for file in ["zip.bin", "legacy.bin"] {
            let bytes = fs::read(fixture(file)).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("cut.bin");
            for length in (0..bytes.len()).step_by(11) {
                fs::write(&path, &bytes[..length]).unwrap();
                assert!(Checkpoint::open_file(&path).is_err(), "{file} {length}");
            }
        }
    }
}
