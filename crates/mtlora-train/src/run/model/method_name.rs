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
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MethodName::MtLora => "mtlora",
            MethodName::Full => "full",
            MethodName::Head => "head",
        })
    }
}

impl FromStr for MethodName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "mtlora" => Ok(MethodName::MtLora),
            "full" => Ok(MethodName::Full),
            "head" => Ok(MethodName::Head),
            _ if s.parse::<AdapterMethod>().is_ok() => Err(format!(
                "`{s}` is a structure of method mtlora: use --structure {s}"
            )),
            _ => Err(format!("unknown method `{s}`: one of mtlora, full, head")),
        }
    }
}
