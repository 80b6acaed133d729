use std::path::Path;

use crate::run::folder::{Run, RunConfig};
use crate::run::generation::GenerationRunConfig;
use crate::training::learners::classification::TrainError;

/// The configuration of a run of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredConfig {
    /// Of a classification or a regression.
    Classification(Box<RunConfig>),
    /// Of a data-to-text task.
    Generation(Box<GenerationRunConfig>),
}

impl StoredConfig {
    /// A run that is there, and its configuration.
    ///
    /// # Errors
    /// When the folder has no readable `run.toml`.
    pub fn open(folder: &Path) -> Result<(Run, Self), TrainError> {
        let (run, table) = Run::open::<toml::Table>(folder)?;
        // Only texts are decoded.
        let stored = match table.contains_key("decoding") {
            true => Self::Generation(Box::new(Run::open(folder)?.1)),
            false => Self::Classification(Box::new(Run::open(folder)?.1)),
        };
        Ok((run, stored))
    }
}
