//! Replaces the Hub in builds without the feature `hub`: only folders can be named.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::train::glue::GlueTask;
use mtlora::train::{AdapterSettings, Run, RunConfig};

use crate::cli::model::notes;

const WITHOUT: &str =
    "this build does not support the Hub; build with --features hub, or name an existing folder";

/// Returns `given`, which must be a folder.
pub(crate) fn model(
    given: &Path,
    revision: Option<&str>,
    _: impl FnOnce(&Path) -> Result<(), Box<dyn Error>>,
) -> Result<PathBuf, Box<dyn Error>> {
    match revision {
        Some(_) => Err(format!("--revision: {WITHOUT}").into()),
        None => {
            let folder = folder(given)?;
            notes::tell(&folder);
            Ok(folder)
        }
    }
}

/// Returns `given`, which must be a folder.
pub(crate) fn adapter(given: &Path) -> Result<PathBuf, Box<dyn Error>> {
    folder(given)
}

/// Fails, because without the Hub the data must be named.
pub(crate) fn glue_data(_: &GlueTask, _: &[&str]) -> Result<PathBuf, Box<dyn Error>> {
    Err(format!("--data is needed: {WITHOUT}").into())
}

/// Opens a run, and prints notes about its model.
pub(crate) fn open_run(folder: &Path) -> Result<(Run, RunConfig), Box<dyn Error>> {
    let (run, config) = Run::open(folder)?;
    notes::tell(&config.base.model);
    Ok((run, config))
}

/// Does nothing: without the Hub a missing adapter cannot be fetched again.
pub(crate) fn run_origin(_: &mut AdapterSettings) -> Result<(), Box<dyn Error>> {
    Ok(())
}

/// Returns the run's data folder.
pub(crate) fn run_data(data: &Path, _: &str, _: Option<&str>) -> Result<PathBuf, Box<dyn Error>> {
    Ok(data.to_path_buf())
}

/// A name is not known to be one on the Hub.
pub(crate) fn is_name(_: &str) -> bool {
    false
}

/// Nothing is looked up on the Hub.
pub(crate) fn is_unreachable(_: &(dyn Error + 'static)) -> bool {
    false
}

fn folder(given: &Path) -> Result<PathBuf, Box<dyn Error>> {
    given
        .canonicalize()
        .map_err(|error| format!("{}: {error}; {WITHOUT}", given.display()).into())
}
