//! A GGUF file in place of a model's folder: its tensors by Hugging Face's names, and what the small files of such a folder
//! would say.

use std::path::Path;

use mtlora_core::PackedMatrix;
use serde_json::Value;

use super::decoder::Decoder;
use super::error::GgufError;
use super::file::GgufFile;
use super::rows::stored_row;
use super::tokenizer;
use crate::files::names::{CONFIG_FILE, GENERATION_CONFIG_FILE, TOKENIZER_FILE};

/// How the name of a GGUF file ends.
const ENDING: &str = "gguf";
/// The settings of the tokenizer.
const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// The files that a folder with the same model would have.
const FILES: [&str; 4] = [
    CONFIG_FILE,
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    GENERATION_CONFIG_FILE,
];

/// Whether a path is a GGUF file and no folder.
pub fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| end.eq_ignore_ascii_case(ENDING))
        && path.is_file()
}

/// The GGUF file and the name of a file that a folder would have, if `path` is such a file within a GGUF file.
pub(crate) fn companion(path: &Path) -> Option<(&Path, &'static str)> {
    let name = path.file_name()?;
    let name = FILES.into_iter().find(|known| name == *known)?;
    let file = path.parent()?;
    is_gguf(file).then_some((file, name))
}

/// What a [`companion`] says.
///
/// # Errors
/// When the file is damaged, or has something that is not supported, with its name.
pub(crate) fn read_companion(path: &Path, name: &str) -> Result<Vec<u8>, GgufError> {
    let file = GgufFile::open(path)?;
    let decoder = Decoder::of(&file)?;
    let value = match name {
        CONFIG_FILE => Value::Object(decoder.config()?),
        GENERATION_CONFIG_FILE => tokenizer::generation_config(&file)?,
        _ => {
            let [tokenizer, config] = tokenizer::files(&file, decoder.max_tokens()?)?;
            if name == TOKENIZER_FILE {
                tokenizer
            } else {
                config
            }
        }
    };
    Ok(value.to_string().into_bytes())
}

/// The tensors of a GGUF file.
#[derive(Debug)]
pub(crate) struct GgufModel {
    file: GgufFile,
}

/// A tensor of a GGUF file.
#[derive(Clone, Debug)]
pub(crate) struct GgufTensorName {
    /// Its name in the file.
    pub stored: String,
    /// The slowest dimension first.
    pub shape: Vec<usize>,
}

impl GgufModel {
    /// Opens a file, and lists its tensors by Hugging Face's names.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<(String, GgufTensorName)>), GgufError> {
        let file = GgufFile::open(path)?;
        let names = Decoder::of(&file)?.tensors()?;
        let tensors = names.into_iter().filter_map(|(name, stored)| {
            let shape = file.tensors.get(stored)?.shape.clone();
            let stored = stored.to_string();
            Some((name, GgufTensorName { stored, shape }))
        });
        let tensors = tensors.collect();
        Ok((Self { file }, tensors))
    }

    /// A tensor's values, in Hugging Face's order.
    pub(crate) fn values(&self, stored: &str) -> Result<Vec<f32>, GgufError> {
        Decoder::of(&self.file)?.values(stored)
    }

    /// A matrix as the file has it, with its rows in Hugging Face's order; `None` where it cannot be kept packed.
    pub(crate) fn packed(&self, stored: &str) -> Result<Option<PackedMatrix>, GgufError> {
        let Some(info) = self.file.tensors.get(stored) else {
            return Ok(None);
        };
        let Some(matrix) = self.file.packed(stored, info)? else {
            return Ok(None);
        };
        let width = Decoder::of(&self.file)?.paired_heads(stored, info)?;
        Ok(match width {
            None => Some(matrix),
            Some(width) => matrix.with_rows(|row| stored_row(row, width)),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::borrow::Cow;
    use std::path::PathBuf;

    use mtlora_core::{BaseDtype, devices};

    use super::super::blocks::BlockType;
    use super::super::names::llama_cpp_name;
    use super::super::rows::with_neighbours;
    use super::super::write::{GgufTensor, GgufValue, write_gguf};
    use super::*;
    use crate::families::causal::{CausalConfig, CausalLm};
    use crate::families::registry::ModelFamilies;
    use crate::families::sizes::ModelSizes;
    use crate::families::text_config::TextConfig;
    use crate::files::checkpoint::Checkpoint;
    use crate::files::tensor_values::TensorValues;
    use crate::packed_batch::PackedBatch;
    use crate::text::encoder::Tokens;

    const HEAD: usize = 16;

    /// A Llama with random weights, with its matrices in three types.
    fn llama(folder: &Path) -> PathBuf {
        let sizes = ModelSizes {
            vocab_size: 40,
            hidden_size: 64,
            layers: 2,
            heads: 4,
            key_value_heads: Some(2),
            head_width: Some(HEAD),
            intermediate_size: Some(96),
            max_tokens: 32,
            end_of_text: None,
        };
        let config = ModelFamilies::builtin()
            .new_causal("llama", &sizes)
            .unwrap();
        let whole = folder.join("whole");
        let device = &devices()[0].device;
        CausalLm::fresh(&config, 3, device)
            .unwrap()
            .save(&whole, &config)
            .unwrap();
        let checkpoint = Checkpoint::open(&whole).unwrap();
        let kinds = [BlockType::Q8_0, BlockType::F16, BlockType::Bf16];
        let tensors: Vec<GgufTensor<'_>> = checkpoint
            .names()
            .enumerate()
            .map(|(at, name)| {
                let (shape, values) = checkpoint.read_f32(name).unwrap();
                let turned = name.contains("q_proj") || name.contains("k_proj");
                let values = if turned {
                    with_neighbours(&values, shape[0], HEAD)
                } else {
                    values
                };
                let kind = if shape.len() == 2 {
                    kinds[at % 3]
                } else {
                    BlockType::F32
                };
                GgufTensor {
                    name: llama_cpp_name(name).unwrap(),
                    shape,
                    kind,
                    values: TensorValues::Ready(Cow::Owned(values)),
                }
            })
            .collect();
        let number = |name: &str, value| (format!("llama.{name}"), GgufValue::U32(value));
        let fields = [
            (
                "general.architecture".to_string(),
                GgufValue::Text("llama".to_string()),
            ),
            (
                "llama.attention.layer_norm_rms_epsilon".to_string(),
                GgufValue::F32(1e-5),
            ),
            number("context_length", 32),
            number("embedding_length", 64),
            number("block_count", 2),
            number("feed_forward_length", 96),
            number("attention.head_count", 4),
            number("attention.head_count_kv", 2),
        ];
        let path = folder.join("model.gguf");
        write_gguf(&path, &fields, &tensors).unwrap();
        path
    }

    /// What is kept packed computes what it computes unpacked, and is read in any precision.
    #[test]
    fn a_file_is_a_model_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = llama(folder.path());
        let device = &devices()[0].device;
        let config = CausalConfig::from_folder(&path).unwrap();
        assert_eq!((config.model_type(), config.max_tokens()), ("llama", 32));
        let ids = [3, 1, 4, 1, 5, 9, 2, 6];
        let tokens = Tokens {
            ids: ids.to_vec(),
            type_ids: vec![0; ids.len()],
        };
        let batch = PackedBatch::new(&[&tokens], &config, device).unwrap();
        let logits = |dtype| -> Vec<f32> {
            let model = CausalLm::from_folder_in(dtype, &path, &config, device).unwrap();
            model.logits(&batch).into_data().try_to_vec().unwrap()
        };
        let dense = logits(BaseDtype::F32);
        let size = dense
            .iter()
            .fold(0.0f32, |most, value| most.max(value.abs()));
        for (dtype, bound) in [(BaseDtype::Packed, 1e-5), (BaseDtype::Nf4, 0.5)] {
            if dtype.check(device).is_err() {
                continue;
            }
            for (found, wanted) in logits(dtype).iter().zip(&dense) {
                assert!(
                    (found - wanted).abs() < bound * size,
                    "{dtype}: {found} for {wanted}"
                );
            }
        }
        let checkpoint = Checkpoint::open(&path).unwrap();
        let mut packed = 0;
        for name in checkpoint.names() {
            if let Some(matrix) = checkpoint.packed(name).unwrap() {
                let (shape, values) = checkpoint.read_f32(name).unwrap();
                assert_eq!(
                    (matrix.sides().to_vec(), matrix.values()),
                    (shape, values),
                    "{name}"
                );
                packed += 1;
            }
        }
        assert_eq!(packed, 15);
    }

    #[test]
    fn only_the_known_files_are_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.GGUF");
        assert!(!is_gguf(&path) && companion(&path.join(CONFIG_FILE)).is_none());
        std::fs::write(&path, b"GGUF").unwrap();
        assert!(is_gguf(&path) && companion(&path.join(CONFIG_FILE)).is_some());
        assert!(companion(&path.join("model.safetensors")).is_none());
        assert!(
            CausalConfig::from_folder(&path)
                .unwrap_err()
                .to_string()
                .contains("ends too early")
        );
    }
}
