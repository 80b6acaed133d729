//! Checks whether a command may use a run that is unfinished.

use std::path::Path;

use mtlora::models::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, TRAINED_FILE};
use mtlora::train::{Unfinished, explain_not_a_run, run_of_checkpoint};

pub(crate) use mtlora::train::{is_imported, lacks_values};

/// The state of a run that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Checkpoint {
    /// The state with the best score so far.
    Best,
}

/// The flag that chooses the state.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct CheckpointArgs {
    /// Use an unfinished run in its best state so far. Finished runs always use their best state.
    #[arg(long, value_enum, value_name = "WHICH", requires = "run")]
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl CheckpointArgs {
    /// Refuses the run in `folder` if it is unfinished, unless its best state exists and is asked for.
    pub(crate) fn check(self, folder: &Path) -> Result<(), String> {
        refuse_other_folders(folder)?;
        match (Unfinished::find(folder), self.checkpoint) {
            (None, _) if lacks_values(folder) => {
                let name = folder.display();
                let file = if folder.join(ADAPTER_CONFIG_FILE).exists() {
                    ADAPTER_WEIGHTS_FILE
                } else {
                    TRAINED_FILE
                };
                Err(format!(
                    "{name}: the run is complete, but it has no {file}: \
                     `mtlora train --resume {name}` restores it from the last checkpoint"
                ))
            }
            (None, _) => Ok(()),
            (Some(unfinished), Some(Checkpoint::Best)) if unfinished.has_best => Ok(()),
            (Some(unfinished), _) => Err(unfinished.to_string()),
        }
    }
}

/// Prints a note if `folder` is an unfinished run that is used as an adapter.
///
/// # Errors
/// If the run has no usable state yet.
pub(crate) fn note_if_unfinished(folder: &Path) -> Result<(), String> {
    check_usable(folder)?;
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

/// Refuses an unfinished run without a usable state, a checkpoint's folder, and a file.
pub(crate) fn check_usable(folder: &Path) -> Result<(), String> {
    refuse_other_folders(folder)?;
    match Unfinished::find(folder) {
        Some(unfinished) if !unfinished.has_best => Err(unfinished.to_string()),
        _ => Ok(()),
    }
}

/// Refuses what cannot be the folder of a run or of an adapter.
fn refuse_other_folders(folder: &Path) -> Result<(), String> {
    if !folder.exists() || folder.is_file() || run_of_checkpoint(folder).is_some() {
        return Err(format!(
            "{} is not a folder of a run or an adapter: {}",
            folder.display(),
            explain_not_a_run(folder)
        ));
    }
    Ok(())
}
