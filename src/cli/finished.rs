//! What may be done with a run that has not ended.

use std::path::Path;

use mtlora::train::{Unfinished, run_of_checkpoint, what_else};

pub(super) use mtlora::train::is_imported;

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
        refuse_others(folder)?;
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
    usable(folder)?;
    match Unfinished::find(folder) {
        None => Ok(()),
        Some(_) => {
            note!(
                "{}: this run is unfinished; the state with the best score so far is used",
                folder.display()
            );
            Ok(())
        }
    }
}

/// An error if the run whose folder it may be has nothing yet that could be used, or if it is a checkpoint or a file.
pub(super) fn usable(folder: &Path) -> Result<(), String> {
    refuse_others(folder)?;
    match Unfinished::find(folder) {
        Some(unfinished) if !unfinished.has_best => Err(unfinished.to_string()),
        _ => Ok(()),
    }
}

/// Refuses what cannot be the folder of a run or of an adapter.
fn refuse_others(folder: &Path) -> Result<(), String> {
    if !folder.exists() || folder.is_file() || run_of_checkpoint(folder).is_some() {
        return Err(format!(
            "{} is no folder of a run or an adapter: {}",
            folder.display(),
            what_else(folder)
        ));
    }
    Ok(())
}
