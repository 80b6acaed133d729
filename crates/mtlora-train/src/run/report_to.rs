//! Which program's files a run writes, beside its own log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a run reports its curves, with transformers' names (`report_to`). `metrics.jsonl` is written in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportTo {
    /// To TensorBoard: event files in the run's folder ([`EventWriter`](crate::EventWriter)).
    #[default]
    Tensorboard,
    /// Nowhere.
    None,
}

impl ReportTo {
    /// Both choices, the default first.
    pub const ALL: [Self; 2] = [Self::Tensorboard, Self::None];

    /// The name in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tensorboard => "tensorboard",
            Self::None => "none",
        }
    }

    /// Whether it is the default, which `run.toml` leaves out.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for ReportTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ReportTo {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == name);
        let known = || Self::ALL.map(Self::as_str).join(", ");
        found.ok_or_else(|| format!("expected one of {}", known()))
    }
}
