//! Makes the run of one cell.

use std::error::Error;
use std::path::Path;

use mtlora::train::{FitError, ResumeChanges, Run, RunConfig, RunError, RunResults};

use crate::cli::console::output::{self, Output};
use crate::cli::model::head::HeadOf;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::resolve::Resolved;
use crate::cli::sweep::store::Outcome;
use crate::cli::train::{Bases, Begin, chat, classification, different, generation};

const QUIET: Output = Output {
    plain: true,
    json: false,
    quiet: true,
};

/// Makes a run in `folder`, or finishes the one that was begun there. Its checkpoints are removed at the end.
///
/// # Errors
/// If it cannot be made, or the run that was begun has other settings. A divergence is an outcome, not an error.
pub(super) fn run(
    folder: &Path,
    settings: Settings,
    bases: &mut Bases,
) -> Result<Outcome, Box<dyn Error>> {
    output::forget_peak_rss();
    let file = settings.file()?;
    let resolved = settings.resolve(HeadOf::Model)?;
    let trained = match resolved {
        Resolved::Classification(config, task) => {
            let begin = begin(folder, (*config).clone().into(), file)?;
            classification::run(&config, task.as_ref(), begin, QUIET, Some(bases), None)
        }
        Resolved::Generation(config, task) => {
            let begin = begin(folder, (*config).clone().into(), file)?;
            generation::run(&config, task.as_ref(), begin, QUIET, Some(bases), None)
        }
        Resolved::Chat(config) => {
            let begin = begin(folder, (*config).clone().into(), file)?;
            chat::run(&config, begin, QUIET, Some(bases), None)
        }
    };
    let outcome = ended(trained)?;
    let (run, _) = Run::open(folder)?;
    run.checkpoints().clear()?;
    Ok(outcome)
}

/// A new run with the settings file `settings`, or one to resume.
fn begin(folder: &Path, config: RunConfig, settings: String) -> Result<Begin<'_>, Box<dyn Error>> {
    if !Run::is_in(folder) {
        // A process that is killed while it makes the folder leaves a part of it.
        return Ok(Begin::New {
            out: folder,
            overwrite: true,
            settings,
        });
    }
    let (run, mut begun) = Run::open(folder)?;
    begun.change(ResumeChanges {
        device: Some(config.device.clone()),
        checkpoints: Some(config.checkpoints.clone()),
        final_scores: None,
    });
    let changes = different(&begun, &config)?;
    if let Some(change) = changes.first() {
        return Err(format!(
            "{}: it was begun with other settings ({change}); delete this folder, or name another one with --out",
            folder.display()
        )
        .into());
    }
    Ok(Begin::Resume(run.lock()?))
}

/// The outcome of a training that ended with results or diverged.
fn ended(trained: Result<Option<RunResults>, Box<dyn Error>>) -> Result<Outcome, Box<dyn Error>> {
    let error = match trained {
        Ok(Some(results)) => return Ok(Outcome::Done(Box::new(results))),
        Ok(None) => return Err("a dry run has no results".into()),
        Err(error) => error,
    };
    match error.downcast_ref() {
        Some(RunError::Fit(FitError::NotFinite { step, .. })) => {
            Ok(Outcome::Diverged { step: *step })
        }
        _ => Err(error),
    }
}
