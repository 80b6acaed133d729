//! The kinds of TOML files that a user writes.

use std::fmt;

use crate::cli::settings::source::Source;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// What `train --config` reads.
    Settings,
    /// What `sweep run` reads.
    Sweep,
    /// The settings for a model and a task, with a description.
    Recipe,
}

impl Kind {
    /// The kind of a file, by its keys.
    ///
    /// # Errors
    /// If the text is not TOML; the message names the line and the column.
    pub(super) fn of(source: &Source) -> Result<Self, String> {
        let root = source.entries()?;
        let has = |key: &&str| root.place_of(key).is_some();
        Ok(
            if ["seeds", "tuning_seeds", "arms", "tasks", "grid"]
                .iter()
                .any(has)
            {
                Kind::Sweep
            } else if has(&"settings") {
                Kind::Recipe
            } else {
                Kind::Settings
            },
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Settings => "settings",
            Kind::Sweep => "sweep",
            Kind::Recipe => "recipe",
        })
    }
}
