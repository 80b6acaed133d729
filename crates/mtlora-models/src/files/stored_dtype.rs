//! The precision in which a model's weights are written.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};
use safetensors::Dtype;

/// The precision in which the weights of a model folder are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoredDtype {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floats, whose values are 65504 at most.
    F16,
}

impl StoredDtype {
    /// All of them.
    pub const ALL: [StoredDtype; 3] = [StoredDtype::F32, StoredDtype::Bf16, StoredDtype::F16];

    /// The name in a config.json, as PyTorch has it.
    pub fn torch_name(self) -> &'static str {
        match self {
            StoredDtype::F32 => "float32",
            StoredDtype::Bf16 => "bfloat16",
            StoredDtype::F16 => "float16",
        }
    }

    /// Whether a value stays finite.
    pub(crate) fn holds(self, value: f32) -> bool {
        match self {
            StoredDtype::F32 => value.is_finite(),
            StoredDtype::Bf16 => bf16::from_f32(value).is_finite(),
            StoredDtype::F16 => f16::from_f32(value).is_finite(),
        }
    }

    /// The name in a safetensors file.
    pub(super) fn safetensors(self) -> Dtype {
        match self {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::Bf16 => Dtype::BF16,
            StoredDtype::F16 => Dtype::F16,
        }
    }

    /// The bytes of a value.
    pub(super) fn bytes(self) -> usize {
        match self {
            StoredDtype::F32 => 4,
            StoredDtype::Bf16 | StoredDtype::F16 => 2,
        }
    }

    /// Adds the values' bytes, each rounded to the nearest.
    pub(super) fn write(self, values: &[f32], out: &mut Vec<u8>) {
        match self {
            StoredDtype::F32 => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            StoredDtype::Bf16 => {
                let halves = values.iter().map(|value| bf16::from_f32(*value));
                out.extend(halves.flat_map(bf16::to_le_bytes));
            }
            StoredDtype::F16 => {
                let halves = values.iter().map(|value| f16::from_f32(*value));
                out.extend(halves.flat_map(f16::to_le_bytes));
            }
        }
    }
}

impl fmt::Display for StoredDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoredDtype::F32 => "f32",
            StoredDtype::Bf16 => "bf16",
            StoredDtype::F16 => "f16",
        })
    }
}

impl FromStr for StoredDtype {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|dtype| dtype.to_string() == s);
        found.ok_or_else(|| {
            let names = Self::ALL.map(|dtype| dtype.to_string()).join(", ");
            format!("unknown precision `{s}`: one of {names}")
        })
    }
}
