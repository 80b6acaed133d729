//! What may be done with a run that has not ended.

use std::path::Path;

use mtlora::train::Unfinished;

/// Which state of a run is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Checkpoint {
    /// The one with the best score, so far if the run is unfinished.
    Best,
}

/// The flag that says it.
#[derive(Clone, Copy, clap::Args)]
pub(super) struct CheckpointArgs {
    /// Use a run that is unfinished, in its best state so far. Finished runs always use their best state.
    #[arg(long, value_enum, value_name = "WHICH", requires = "run")]
    pub(super) checkpoint: Option<Checkpoint>,
}

impl CheckpointArgs {
    /// An error if the run in `folder` is unfinished, unless its best state is there and asked for.
    pub(super) fn check(self, folder: &Path) -> Result<(), String> {
        match (Unfinished::find(folder), self.checkpoint) {
            (None, _) => Ok(()),
            (Some(unfinished), Some(Checkpoint::Best)) if unfinished.has_best => Ok(()),
            (Some(unfinished), _) => Err(unfinished.to_string()),
        }
    }
}

/// For an adapter's folder that is a run's: says on standard error that it is unfinished.
///
/// # Errors
/// When it has nothing yet that could be used.
pub(super) fn tell(folder: &Path) -> Result<(), String> {
    match Unfinished::find(folder) {
        None => Ok(()),
        Some(unfinished) if unfinished.has_best => {
            note!(
                "{}: this run is unfinished; the state with the best score so far is used",
                folder.display()
            );
            Ok(())
        }
        Some(unfinished) => Err(unfinished.to_string()),
    }
}
