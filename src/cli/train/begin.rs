//! Starts a training, from the beginning or from a checkpoint.

use std::path::Path;

use mtlora::models::TrainedFormat;
use mtlora::train::{Rewound, Run, RunConfig, RunError, Snapshot};

/// The run to train: a new one, or one that is resumed; or none.
pub(crate) enum Begin<'a> {
    /// A new run, whose folder must be empty unless it may be overwritten.
    New {
        /// The folder.
        out: &'a Path,
        /// Whether it may be overwritten.
        overwrite: bool,
        /// The settings, as the text of a settings file.
        settings: String,
    },
    /// A run that was stopped.
    Resume(Run),
    /// No run: only what a training takes is to be shown, or another rank has the run.
    NoRun,
}

impl Begin<'_> {
    /// Opens the run for training, and returns it with the snapshot to resume from, if there is one. Notes for the user go to
    /// standard error.
    pub(crate) fn open(
        self,
        config: impl Into<RunConfig>,
        format: &TrainedFormat,
    ) -> Result<Option<(Run, Option<Snapshot>)>, RunError> {
        match self {
            Begin::NoRun => Ok(None),
            Begin::New {
                out,
                overwrite,
                settings,
            } => {
                let run = Run::create(out, overwrite, &config.into())?;
                run.save_settings(&settings)?;
                Ok(Some((run, None)))
            }
            Begin::Resume(run) => {
                let Rewound { snapshot, notes } = run.rewind(format)?;
                for note in notes {
                    note!("{note}");
                }
                Ok(Some((run, snapshot)))
            }
        }
    }
}
