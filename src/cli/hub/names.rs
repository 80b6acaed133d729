//! Resolves names on the Hugging Face Hub.
//!
//! Wherever a folder is expected, an existing folder takes precedence. Anything else that has the form of a name is
//! looked up on the Hub, and resolves to a folder of the cache.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mtlora::hub::{Hub, HubConfig, HubError, Progress, RepoId, RepoKind, RetryWait};
use mtlora::train::glue::{self, GlueTask};
use mtlora::train::{AdapterSettings, DataError, Run, RunConfig, TaskData};

use crate::cli::console::output::printable;
use crate::cli::hub::transfers::Transfers;
use crate::cli::model::notes;

/// Waits at least this long are reported to the user.
const LONG: Duration = Duration::from_secs(2);

/// The Hub that the environment names.
pub(crate) fn open() -> Result<Hub, HubError> {
    Ok(Hub::new(HubConfig::from_env()?.with_on_retry(note_wait)))
}

fn note_wait(wait: RetryWait<'_>) {
    let RetryWait {
        endpoint,
        reason,
        time,
    } = wait;
    if time >= LONG {
        let reason = printable(reason);
        note!("{endpoint}: {reason}; trying again in {} s", time.as_secs());
    }
}

/// The folder of a model: `given` itself, or the model with that name on the Hub at `revision`. `fits` checks the
/// model's configuration before the weights are fetched. Notes for the user go to standard error.
pub(crate) fn model(
    given: &Path,
    revision: Option<&str>,
    fits: impl FnOnce(&Path) -> Result<(), Box<dyn Error>>,
) -> Result<PathBuf, Box<dyn Error>> {
    let folder = match name(given, revision)? {
        None => absolute(given),
        Some(id) => {
            let mut transfers = Transfers::new();
            let snapshot = open()?
                .snapshot(RepoKind::Model, &id, &mut transfers)
                .map_err(|error| no_folder(given, error))?;
            fits(&snapshot.model_description(&mut transfers)?)?;
            absolute(&snapshot.model_weights(&mut transfers)?)
        }
    };
    notes::tell(&folder);
    Ok(folder)
}

/// The folder of an adapter: `given` itself, or the adapter with that name on the Hub.
pub(crate) fn adapter(given: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let Some(id) = name(given, None)? else {
        return Ok(absolute(given));
    };
    let folder = open()?
        .adapter(&id, &mut Transfers::new())
        .map_err(|error| no_folder(given, error))?;
    Ok(absolute(&folder))
}

/// The folder of a GLUE task from the Hub, with the files of these splits.
pub(crate) fn glue_data(task: &GlueTask, splits: &[&str]) -> Result<PathBuf, Box<dyn Error>> {
    let id: RepoId = glue::HUB_DATASET.parse()?;
    glue_files(&id, task, splits)
}

fn glue_files(id: &RepoId, task: &GlueTask, splits: &[&str]) -> Result<PathBuf, Box<dyn Error>> {
    let hub_splits: Vec<String> = splits
        .iter()
        .map(|split| task.hub_split(split))
        .collect::<Result<_, DataError>>()?;
    let wanted = |file: &str| {
        let mut splits = hub_splits.iter();
        splits.any(|split| glue::is_hub_file(file, task, split))
    };
    let folder = task.hub_folder();
    let found = open()?.dataset(id, folder, &wanted, &mut Transfers::new())?;
    Ok(absolute(&found))
}

/// Opens a run. If its model came from the Hub and is no longer in the cache, the same commit is fetched again.
pub(crate) fn open_run(folder: &Path) -> Result<(Run, RunConfig), Box<dyn Error>> {
    let (run, mut config) = Run::open(folder)?;
    fetch_again(&mut config.base.model, Hub::model)?;
    notes::tell(&config.base.model);
    Ok((run, config))
}

/// Fetches the adapter that a resumed run started from, if that came from the Hub and is no longer in the cache.
pub(crate) fn run_origin(settings: &mut AdapterSettings) -> Result<(), Box<dyn Error>> {
    match &mut settings.init_from {
        Some(folder) => fetch_again(folder, Hub::adapter),
        None => Ok(()),
    }
}

fn fetch_again(
    folder: &mut PathBuf,
    fetch: impl FnOnce(&Hub, &RepoId, &mut dyn Progress) -> Result<PathBuf, HubError>,
) -> Result<(), Box<dyn Error>> {
    if let Some((RepoKind::Model, id)) = gone(folder) {
        *folder = absolute(&fetch(&open()?, &id, &mut Transfers::new())?);
    }
    Ok(())
}

/// A run's data folder for reading `split`. If the data came from the Hub and that split is not in the cache, it is
/// fetched.
pub(crate) fn run_data(
    data: &Path,
    task: &str,
    split: Option<&str>,
) -> Result<PathBuf, Box<dyn Error>> {
    let of_hub = data.to_str().and_then(RepoId::of_snapshot);
    let (Some((RepoKind::Dataset, id)), Ok(task)) = (of_hub, glue::task(task)) else {
        return Ok(data.to_path_buf());
    };
    let split = split.unwrap_or_else(|| task.dev_split());
    if task.has_hub_split(data, split) {
        Ok(data.to_path_buf())
    } else {
        glue_files(&id, &task, &[split])
    }
}

/// The repository whose snapshot `folder` was, if the folder no longer exists.
fn gone(folder: &Path) -> Option<(RepoKind, RepoId)> {
    if folder.exists() {
        None
    } else {
        RepoId::of_snapshot(folder.to_str()?)
    }
}

/// The name on the Hub that `given` is, unless it is a folder.
fn name(given: &Path, revision: Option<&str>) -> Result<Option<RepoId>, Box<dyn Error>> {
    let id = match (given.exists(), given.to_str().map(str::parse::<RepoId>)) {
        (false, Some(Ok(id))) => id,
        _ => {
            return match revision {
                Some(_) => Err(format!(
                    "--revision is for names on the Hub, and {} is not one: leave it out",
                    given.display()
                )
                .into()),
                None => Ok(None),
            };
        }
    };
    let named = given.to_str().is_some_and(|text| text.contains('@'));
    match revision {
        Some(_) if named => Err("the revision is named twice: after @, and with --revision".into()),
        Some(revision) => Ok(Some(id.at(revision)?)),
        None => Ok(Some(id)),
    }
}

/// Whether a text is the name of a repository with an owner. A folder here has another meaning, and one word alone may be
/// any program's name of something.
pub(crate) fn is_name(text: &str) -> bool {
    let is_id = text.parse::<RepoId>().is_ok_and(|id| id.name() == text);
    is_id && text.contains('/') && !Path::new(text).exists()
}

/// The error of asking the Hub for `given`. Unless the Hub has answered that the name exists, it says that there is no
/// such folder, since the path to a folder may have been mistyped.
fn no_folder(given: &Path, error: HubError) -> Box<dyn Error> {
    let given = given.to_path_buf();
    match error {
        HubError::NotFound { .. }
        | HubError::Offline { .. }
        | HubError::Unreachable { .. }
        | HubError::Denied { .. }
        | HubError::Status { .. }
        | HubError::Protocol { .. } => NoFolder { given, error }.into(),
        other => other.into(),
    }
}

/// Neither a folder here nor to be had from the Hub.
#[derive(Debug, thiserror::Error)]
#[error("{} is not a folder here, so it is taken as a name on the Hub: {error}", .given.display())]
struct NoFolder {
    given: PathBuf,
    error: HubError,
}

/// Whether something could not be looked up because the Hub cannot be reached.
pub(crate) fn is_unreachable(error: &(dyn Error + 'static)) -> bool {
    let named = error.downcast_ref::<NoFolder>().map(|one| &one.error);
    let of_hub = named.or_else(|| error.downcast_ref());
    matches!(of_hub, Some(HubError::Unreachable { .. }))
}

/// Makes a path absolute, so that a run can be read from any working directory.
fn absolute(folder: &Path) -> PathBuf {
    folder
        .canonicalize()
        .unwrap_or_else(|_| folder.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_an_owner_and_is_no_folder() {
        for (text, is_one) in [
            ("org/name", true),
            ("name", false),
            ("org/name@main", false),
            ("/org/name", false),
            ("src/cli", false),
        ] {
            assert_eq!(is_name(text), is_one, "{text}");
        }
    }

    #[test]
    fn a_mistyped_folder_is_mentioned_if_the_hub_does_not_have_it() {
        let given = Path::new("assets/tiny-robert");
        let what = || "model assets/tiny-robert".to_string();
        let url = || "https://hub/api".to_string();
        let unreachable = HubError::Unreachable {
            what: what(),
            url: url(),
            attempts: 5,
            reason: "the name of the host is not known".to_string(),
        };
        let status = HubError::Status {
            what: what(),
            url: url(),
            status: 407,
            message: String::new(),
        };
        for error in [unreachable, status] {
            let shown = error.to_string();
            assert_eq!(
                no_folder(given, error).to_string(),
                format!(
                    "assets/tiny-robert is not a folder here, so it is taken as a name on the Hub: {shown}"
                )
            );
        }
        let no_revision = HubError::NoRevision {
            what: what(),
            endpoint: url(),
        };
        let text = no_folder(given, no_revision).to_string();
        assert!(!text.contains("not a folder"), "{text}");
    }
}
