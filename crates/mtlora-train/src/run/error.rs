//! Errors of runs: reading and writing their folders, and starting and resuming them.

use std::io;
use std::path::PathBuf;

use mtlora_core::{AttachError, BaseDtypeError, StateError};
use mtlora_models::{AdapterError, ModelError};

use crate::data::error::DataError;
use crate::run::checkpoints::store::CheckpointError;
use crate::run::model::init_from_error::InitFromError;
use crate::run::unfinished::Unfinished;
use crate::training::error::FitError;
use crate::training::options::OptionError;
use crate::training::snapshot::ResumeError;

/// The reason why a run cannot be created, opened, trained or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Training or evaluating failed.
    #[error(transparent)]
    Fit(FitError),
    /// The adapter does not fit the model.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The base model cannot be kept in the given precision.
    #[error(transparent)]
    BaseDtype(#[from] BaseDtypeError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model folder or the tokenizer cannot be read, or a file cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The stored values do not fit the model.
    #[error(transparent)]
    State(#[from] StateError),
    /// An adapter's folder cannot be read, or the adapter does not fit the model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The adapter that a run starts from does not fit its settings.
    #[error(transparent)]
    InitFrom(#[from] InitFromError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A run cannot be resumed.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// An option is out of range.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Settings contradict each other.
    #[error("{0}")]
    Settings(&'static str),
    /// The folder of a new run is not empty.
    #[error("{}: exists and is not empty; name another folder, or pass --overwrite", .folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder of a new run has an unfinished one.
    #[error(
        "{place}: there is an unfinished run{}: {}, or name another folder",
        .0.progress(),
        match .0.is_training {
            true => "a process is training it now, so wait until it ends".to_string(),
            false => format!("continue it with `mtlora train --resume {}`, replace it with --overwrite", .0.folder.display()),
        },
        place = .0.folder.display()
    )]
    UnfinishedThere(Unfinished),
    /// The folder for a new run is not that of a run, and has something that the run would replace.
    #[error(
        "{}: this is not a run's folder, and the run would replace {file} in it: name another folder with --out (--overwrite \
         replaces only runs)",
        .folder.display()
    )]
    OverwritesOthers {
        /// The folder.
        folder: PathBuf,
        /// What would be replaced.
        file: &'static str,
    },
    /// The folder is not that of a run.
    #[error("{} is not a run folder: {reason}", .folder.display())]
    NotARun {
        /// The folder.
        folder: PathBuf,
        /// What the folder is, or what is missing in it.
        reason: String,
    },
    /// Another process is training the run.
    #[error("{}: another process is training this run; wait for it, or stop it", .folder.display())]
    Locked {
        /// The run's folder.
        folder: PathBuf,
    },
    /// A file of the run cannot be read.
    #[error("{}: cannot read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file of the run is invalid.
    #[error("{}: {source}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A run without an adapter cannot share its base model with others.
    #[error("{}: {reason}", .folder.display())]
    NotShareable {
        /// The run's folder.
        folder: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Adapters that are loaded together have different base models.
    #[error(
        "the adapters must have the same base model in the same precision: {first}, and {other}"
    )]
    DifferentBases {
        /// The name and the base model of the first adapter.
        first: String,
        /// The name and the base model of the other adapter.
        other: String,
    },
}

impl RunError {
    /// An error about an invalid file of a run.
    pub(crate) fn invalid(
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Invalid {
            path: path.into(),
            source: source.into(),
        }
    }
}

/// Unwraps an error of a run that an observer passed through the training loop.
impl From<FitError> for RunError {
    fn from(error: FitError) -> Self {
        match error {
            FitError::Observer(source) => match source.downcast::<RunError>() {
                Ok(error) => *error,
                Err(source) => Self::Fit(FitError::Observer(source)),
            },
            error => Self::Fit(error),
        }
    }
}

/// Lets an [`Observer`](crate::Observer) that writes to a run's folder return the errors of the run.
impl From<RunError> for FitError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Fit(error) => error,
            error => Self::observer(error),
        }
    }
}
