//! Writes a model as a GGUF file, as llama.cpp's `convert_hf_to_gguf.py` does.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use half::{bf16, f16};

use super::blocks::BlockType;
use super::error::GgufError;
use super::rows::with_neighbours;
use super::tokenizer_fields;
use super::write::{GgufTensor, GgufValue, write_gguf};
use crate::families::causal::{CausalLm, CausalModelConfig};
use crate::files::tensor_values::TensorValues;
use crate::files::weights::{check_values, stored_tensors};
use burn::module::Module;

/// The type of the matrices in a GGUF file that is written. Norms and biases are 32-bit floats in any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers, 32 with a scale. Matrices whose rows are no multiple of 32 are 16-bit floats.
    Q8_0,
}

impl GgufType {
    /// All of them.
    pub const ALL: [GgufType; 4] = [GgufType::F32, GgufType::F16, GgufType::Bf16, GgufType::Q8_0];

    /// The number of such a file in `general.file_type` (`llama_ftype` in llama.cpp's `llama.h`).
    fn file_type(self) -> u32 {
        match self {
            GgufType::F32 => 0,
            GgufType::F16 => 1,
            GgufType::Q8_0 => 7,
            GgufType::Bf16 => 32,
        }
    }

    /// The type of a tensor of this shape.
    fn of(self, shape: &[usize]) -> BlockType {
        match (self, shape) {
            (GgufType::F16, [_, _]) => BlockType::F16,
            (GgufType::Bf16, [_, _]) => BlockType::Bf16,
            (GgufType::Q8_0, [_, columns]) if columns.is_multiple_of(32) => BlockType::Q8_0,
            (GgufType::Q8_0, [_, _]) => BlockType::F16,
            _ => BlockType::F32,
        }
    }

    /// Whether a value stays finite.
    fn holds(self, value: f32) -> bool {
        match self {
            GgufType::F32 => value.is_finite(),
            GgufType::Bf16 => bf16::from_f32(value).is_finite(),
            GgufType::F16 | GgufType::Q8_0 => f16::from_f32(value).is_finite(),
        }
    }
}

impl fmt::Display for GgufType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GgufType::F32 => "F32",
            GgufType::F16 => "F16",
            GgufType::Bf16 => "BF16",
            GgufType::Q8_0 => "Q8_0",
        })
    }
}

impl FromStr for GgufType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|kind| kind.to_string().eq_ignore_ascii_case(s));
        found.ok_or_else(|| {
            let names = Self::ALL.map(|kind| kind.to_string()).join(", ");
            format!("unknown type `{s}`: one of {names}")
        })
    }
}

/// Writes a model, adapters folded in, as a GGUF file that llama.cpp and [`convert_gguf`](crate::convert_gguf) read. The
/// tokenizer, the chat template and the end tokens are those of `base`, a model's folder or a GGUF file. Each tensor is packed
/// when it is written.
///
/// # Errors
/// When llama.cpp does not have such models, or their like with what this one's configuration asks for, or its tokenizer; when
/// a value is not finite or too large for the type; or when a file cannot be read or written.
pub fn save_gguf(
    model: CausalLm,
    config: &dyn CausalModelConfig,
    base: &Path,
    kind: GgufType,
    path: &Path,
) -> Result<(), GgufError> {
    let config = config.with_tied_output_map(model.model().ties_output_map());
    let unwritable = |message: String| GgufError::Unwritable {
        what: "this model".to_string(),
        message,
    };
    let layout = config.llama_cpp().ok_or_else(|| {
        unwritable(
            "is of a family whose form in llama.cpp is not known here; merge without --gguf".into(),
        )
    })?;
    let described = layout.description().map_err(unwritable)?;
    let mut fields = vec![
        (
            "general.architecture".to_string(),
            GgufValue::Text(layout.architecture().to_string()),
        ),
        (
            "general.type".to_string(),
            GgufValue::Text("model".to_string()),
        ),
        (
            "general.file_type".to_string(),
            GgufValue::U32(kind.file_type()),
        ),
        (
            "general.quantization_version".to_string(),
            GgufValue::U32(2),
        ),
    ];
    fields.extend(described.fields);
    fields.extend(tokenizer_fields::fields(base, &config)?);
    let model = model.materialize();
    let stored = stored_tensors(&model, &config);
    check_values(path, &kind.to_string(), |value| kind.holds(value), &stored)?;
    let mut tensors = Vec::new();
    for (name, values) in described.tensors {
        tensors.push(GgufTensor {
            name,
            shape: vec![values.len()],
            kind: BlockType::F32,
            values: TensorValues::Ready(values.into()),
        });
    }
    for (name, shape, values) in stored {
        let own = layout.tensor_name(&name).ok_or_else(|| {
            unwritable(format!(
                "has the tensor `{name}`, which llama.cpp does not have"
            ))
        })?;
        let module = name
            .rsplit_once('.')
            .map_or(name.as_str(), |(module, _)| module);
        let values = match layout.paired_heads(module) {
            None => values,
            Some(width) => {
                let rows = shape.first().copied().unwrap_or(0);
                TensorValues::Made(Box::new(move || {
                    with_neighbours(&values.get(), rows, width)
                }))
            }
        };
        tensors.push(GgufTensor {
            name: own,
            kind: kind.of(&shape),
            shape,
            values,
        });
    }
    Ok(write_gguf(path, &fields, &tensors)?)
}
