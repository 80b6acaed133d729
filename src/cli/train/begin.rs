//! The start of a training, from the beginning or from a checkpoint.

use std::path::Path;

use mtlora::models::TrainedFormat;
use mtlora::train::{Rewound, Run, RunConfig, RunError, Snapshot};

/// The run that is trained: a new one, or one that is resumed.
pub(crate) enum Begin<'a> {
    /// A new run, in a folder that must be empty unless it may be overwritten.
    New {
        /// The folder.
        out: &'a Path,
        /// Whether it may be overwritten.
        overwrite: bool,
    },
    /// A run that was stopped.
    Resume(Run),
}

impl Begin<'_> {
    /// The run, ready to be trained, and the snapshot that it is resumed from; notes for the user go to standard error.
    pub(crate) fn open(
        self,
        config: impl Into<RunConfig>,
        format: &TrainedFormat,
    ) -> Result<(Run, Option<Snapshot>), RunError> {
        match self {
            Begin::New { out, overwrite } => {
                Ok((Run::create(out, overwrite, &config.into())?, None))
            }
            Begin::Resume(run) => {
                let Rewound { snapshot, notes } = run.rewind(format)?;
                for note in notes {
                    note!("{note}");
                }
                Ok((run, snapshot))
            }
        }
    }
}
