//! Decides whether a first run may replace the run that is in its folder.

use std::error::Error;
use std::path::Path;

use mtlora::train::{ResumeChanges, Run, RunConfig, Unfinished};

use crate::cli::settings::flags::Settings;

/// The most settings that a message lists.
const LISTED: usize = 3;
const REMEDY: &str =
    "name another folder for the new run with --out, or replace the old one with --overwrite";

/// Refuses to replace a finished run in `folder`, unless its settings are those of `config`: then the new run has the
/// same bytes. That an unfinished run is replaced is said.
pub(super) fn refuse_other_run(folder: &Path, config: &RunConfig) -> Result<(), Box<dyn Error>> {
    if !Run::is_in(folder) {
        return Ok(());
    }
    let place = folder.display();
    if let Some(unfinished) = Unfinished::find(folder) {
        let Unfinished {
            step, is_training, ..
        } = unfinished;
        // One that is being trained is refused later.
        if step > 0 && !is_training {
            note!(
                "{place}: the unfinished run there (step {step}) is replaced; `mtlora train --resume {place}` would have \
                 continued it"
            );
        }
        return Ok(());
    }
    let mut old = match Run::open(folder) {
        Ok((_, old)) => old,
        Err(error) => {
            return Err(format!(
                "{place}: there is a finished run that cannot be read: {error}; {REMEDY}"
            )
            .into());
        }
    };
    // When checkpoints are made does not change the result.
    old.change(ResumeChanges {
        checkpoints: Some(config.checkpoints.clone()),
        ..ResumeChanges::default()
    });
    let mut different = different(&old, config)?;
    if different.is_empty() {
        return Ok(());
    }
    let more = different.len().saturating_sub(LISTED);
    different.truncate(LISTED);
    if more > 0 {
        different.push(format!("and {more} more"));
    }
    Err(format!(
        "{place}: there is a finished run with other settings ({}); {REMEDY}",
        different.join(", ")
    )
    .into())
}

/// Describes the settings that differ between two configurations, one line each.
pub(crate) fn different(old: &RunConfig, new: &RunConfig) -> Result<Vec<String>, toml::ser::Error> {
    let mut different = Vec::new();
    compare(
        "",
        &toml::Table::try_from(old)?,
        &toml::Table::try_from(new)?,
        &mut different,
    );
    Ok(different)
}

/// Describes the settings that differ between the tables `old` and `new`, whose names begin with `prefix`.
fn compare(prefix: &str, old: &toml::Table, new: &toml::Table, different: &mut Vec<String>) {
    let added = new.keys().filter(|name| !old.contains_key(*name));
    for name in old.keys().chain(added) {
        let path = format!("{prefix}{name}");
        match (old.get(name), new.get(name)) {
            (old, new) if old == new => {}
            (Some(toml::Value::Table(old)), Some(toml::Value::Table(new))) => {
                compare(&format!("{path}."), old, new, different);
            }
            (old, new) => {
                let shown = |value: Option<&toml::Value>| match value {
                    Some(value) => value.to_string(),
                    None => "not set".to_string(),
                };
                let name = Settings::flag_of(&path).unwrap_or(path);
                different.push(format!(
                    "{name} is {} there and would be {}",
                    shown(old),
                    shown(new)
                ));
            }
        }
    }
}
