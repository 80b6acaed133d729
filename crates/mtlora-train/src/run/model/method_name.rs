//! The names of training methods.

use std::fmt;
use std::str::FromStr;

use mtlora_core::AdapterMethod;
use serde::{Deserialize, Serialize};

/// The name of a [`Method`](crate::Method).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MethodName {
    /// Adapters and the head.
    MtLora,
    /// All parameters.
    Full,
    /// Only the head.
    Head,
    /// The biases and the head.
    BitFit,
}

impl MethodName {
    /// Every method, the default first.
    pub const ALL: [MethodName; 4] = [
        MethodName::MtLora,
        MethodName::Full,
        MethodName::Head,
        MethodName::BitFit,
    ];

    /// The name, as flags and files have it.
    pub fn name(self) -> &'static str {
        match self {
            MethodName::MtLora => "mtlora",
            MethodName::Full => "full",
            MethodName::Head => "head",
            MethodName::BitFit => "bitfit",
        }
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MethodName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut all = MethodName::ALL.into_iter();
        all.find(|method| method.name() == s).ok_or_else(|| {
            if s.parse::<AdapterMethod>().is_ok() {
                return format!("`{s}` is a structure of method mtlora: use --structure {s}");
            }
            let names = MethodName::ALL.map(MethodName::name).join(", ");
            format!("unknown method `{s}`: one of {names}")
        })
    }
}
