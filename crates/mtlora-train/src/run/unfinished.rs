//! Detects unfinished and imported runs, and explains what a folder is if it is not a run.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use mtlora_models::{ADAPTER_CONFIG_FILE, CONFIG_FILE, TRAINED_FILE, adapter_weights};

use crate::run::file_names::{CHECKPOINTS, CONFIG, LOCK, LOG, RESULTS};
use crate::run::log::MetricsLog;

/// The maximum number of runs that a message lists.
const LISTED: usize = 5;

/// A run that is not complete, because it was stopped or killed, or is being trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The run's folder.
    pub folder: PathBuf,
    /// The last step in its log.
    pub step: usize,
    /// The total number of steps, if its log has a step.
    pub steps: Option<usize>,
    /// Whether its best state so far has been saved.
    pub has_best: bool,
    /// Whether a process is training it now.
    pub is_training: bool,
}

impl Unfinished {
    /// Finds out whether the run in `folder` is unfinished. `None` if it is complete, was imported and never trained,
    /// or is not a run.
    pub fn find(folder: &Path) -> Option<Self> {
        let is_run = folder.join(CONFIG).exists() && run_of_checkpoint(folder).is_none();
        if !is_run || folder.join(RESULTS).exists() || is_imported(folder) {
            return None;
        }
        let end = MetricsLog::of_run(folder).end();
        Some(Self {
            folder: folder.to_path_buf(),
            step: end.step,
            steps: end.steps,
            has_best: has_weights(folder),
            is_training: is_locked(folder),
        })
    }
}

impl Unfinished {
    /// How far the training came, as ` (step 5 of 400)`.
    pub(crate) fn progress(&self) -> String {
        match self.steps {
            Some(steps) => format!(" (step {} of {steps})", self.step),
            None => " (its log has no step)".to_string(),
        }
    }
}

/// `this run is unfinished (step 5 of 400): finish it with ...`
impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.display();
        write!(f, "{folder}: this run is unfinished{}", self.progress())?;
        write!(f, ": finish it with `mtlora train --resume {folder}`")?;
        if self.is_training {
            write!(f, " (a process is training it now: wait until it ends)")?;
        }
        if self.has_best {
            write!(f, ", or use the best state so far with --checkpoint best")
        } else {
            write!(
                f,
                "; it has no best state yet (a training that diverged would diverge again: in that case, start a new run with \
                 a lower learning rate)"
            )
        }
    }
}

/// Whether the run in `folder` was made by `import` and has never been trained.
pub fn is_imported(folder: &Path) -> bool {
    let has_trained = folder.join(LOG).exists()
        || folder.join(RESULTS).exists()
        || has_entries(&folder.join(CHECKPOINTS));
    folder.join(CONFIG).exists() && has_weights(folder) && !has_trained
}

/// Whether the run in `folder` is complete, but the file with its trained values is gone.
pub fn lacks_values(folder: &Path) -> bool {
    folder.join(CONFIG).exists() && folder.join(RESULTS).exists() && !has_weights(folder)
}

fn has_weights(folder: &Path) -> bool {
    let is_adapter = folder.join(ADAPTER_CONFIG_FILE).exists() && adapter_weights(folder).is_some();
    is_adapter || folder.join(TRAINED_FILE).exists()
}

fn has_entries(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Whether a process holds the lock of the run in `folder`.
fn is_locked(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK)) else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The run to which the checkpoint `folder`, or the folder of all its checkpoints, belongs.
pub fn run_of_checkpoint(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let is_run = |above: &&Path| above.join(CONFIG).exists();
    let is_checkpoints = |folder: &Path| folder.ends_with(CHECKPOINTS);
    let checkpoints = folder
        .ancestors()
        .take(2)
        .find(|above| is_checkpoints(above))?;
    checkpoints.parent().filter(is_run).map(Path::to_path_buf)
}

/// Explains what `folder` is if it was passed as a run or an adapter but is neither, and what to do instead.
pub fn explain_not_a_run(folder: &Path) -> String {
    let name = folder.display();
    if folder.is_file() {
        return match folder.parent() {
            Some(parent) if parent.join(CONFIG).exists() => {
                format!(
                    "it is a file of the run in {}: name that folder",
                    parent.display()
                )
            }
            _ => "it is a file: name the folder of a run".to_string(),
        };
    }
    if !folder.exists() {
        return "there is no such folder".to_string();
    }
    if let Some(run) = run_of_checkpoint(folder) {
        return format!(
            "it is a checkpoint of the run in {}: name that folder (with --checkpoint best if the run is unfinished)",
            run.display()
        );
    }
    if folder.join(ADAPTER_CONFIG_FILE).exists() {
        return format!(
            "it is an adapter: use --adapter {name} with --model, or make a run from it with `mtlora import`"
        );
    }
    if folder.join(CONFIG_FILE).exists() {
        return format!("it is a model: use --model {name}");
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut runs: Vec<String> = entries
        .filter(|entry| entry.path().join(CONFIG).exists())
        .map(|entry| entry.path().display().to_string())
        .collect();
    runs.sort();
    match runs.len() {
        0 => format!("it has no {CONFIG}, which `mtlora train` and `mtlora import` write"),
        count => {
            let more = count.saturating_sub(LISTED);
            runs.truncate(LISTED);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!("it holds runs: name one of {}{more}", runs.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mtlora_models::ADAPTER_WEIGHTS_FILE;
    use tempfile::TempDir;

    use super::*;
    use crate::run::config::settings::example;
    use crate::run::folder::Run;

    const LOG_TEXT: &str = concat!(
        r#"{"step":0,"dev":{"loss":1.5}}"#,
        "\n",
        r#"{"step":1,"steps":400,"epoch":0.1,"loss":2.5,"learning_rate":0.1}"#,
        "\n",
        r#"{"step":5,"steps":400,"epoch":0.5,"loss":2.0,"learning_rate":0.1}"#,
        "\n",
        r#"{"step":5,"dev":{"loss":1.25}}"#,
        "\n",
        r#"{"step":6,"ste"#
    );

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn found(files: &[(&str, &str)]) -> Option<String> {
        let folder = folder(files);
        let found = Unfinished::find(folder.path())?.to_string();
        Some(found.replace(&folder.path().display().to_string(), "RUN"))
    }

    #[test]
    fn an_unfinished_run_says_how_far_it_got_and_how_to_finish_it() {
        let text = found(&[(CONFIG, ""), (LOG, LOG_TEXT)]).unwrap();
        assert_eq!(
            text,
            "RUN: this run is unfinished (step 5 of 400): finish it with `mtlora train --resume RUN`; it has \
             no best state yet (a training that diverged would diverge again: in that case, start a new run with a lower learning rate)"
        );
        let text = found(&[
            (CONFIG, ""),
            (LOG, LOG_TEXT),
            (ADAPTER_WEIGHTS_FILE, "x"),
            (ADAPTER_CONFIG_FILE, "{}"),
        ])
        .unwrap();
        assert!(
            text.ends_with("or use the best state so far with --checkpoint best"),
            "{text}"
        );
        let text = found(&[(CONFIG, ""), (LOG, LOG_TEXT), (TRAINED_FILE, "x")]).unwrap();
        assert!(text.ends_with("--checkpoint best"), "{text}");
        for begun in [
            &[(CONFIG, "")][..],
            &[(CONFIG, ""), (LOG, "{\"step\":0,\"dev\":{}}\n")],
        ] {
            let text = found(begun).unwrap();
            assert!(text.contains("(its log has no step)"), "{text}");
        }
    }

    #[test]
    fn what_has_ended_or_was_imported_is_not_unfinished() {
        assert_eq!(
            found(&[(CONFIG, ""), (LOG, LOG_TEXT), (RESULTS, "{}")]),
            None
        );
        let imported = [
            (CONFIG, ""),
            (ADAPTER_WEIGHTS_FILE, "x"),
            (ADAPTER_CONFIG_FILE, "{}"),
        ];
        assert_eq!(found(&imported), None);
        assert!(is_imported(folder(&imported).path()));
        assert!(!is_imported(
            folder(&[(CONFIG, ""), (LOG, LOG_TEXT)]).path()
        ));
        assert_eq!(found(&[(LOG, LOG_TEXT)]), None);
        // A trained run counts as trained even if its log is lost or damaged.
        let weights = (ADAPTER_WEIGHTS_FILE, "x");
        assert!(found(&[(CONFIG, ""), weights, ("checkpoints/step-5/state.toml", "")]).is_some());
        assert!(found(&[(CONFIG, ""), weights, (LOG, "\u{0}garbage")]).is_some());
        assert_eq!(Unfinished::find(Path::new("nowhere")), None);
    }

    #[test]
    fn a_run_that_is_being_trained_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::create(folder.path(), false, &example()).unwrap();
        let text = Unfinished::find(folder.path()).unwrap().to_string();
        assert!(text.contains("wait until it ends"), "{text}");
        drop(run);
        let text = Unfinished::find(folder.path()).unwrap().to_string();
        assert!(
            text.contains("--resume") && !text.contains("wait"),
            "{text}"
        );
    }

    #[test]
    fn folders_that_are_not_runs_are_explained() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
        let cases: [Case<'_>; 7] = [
            (
                &[(ADAPTER_CONFIG_FILE, "{}")],
                "",
                "it is an adapter: use --adapter",
            ),
            (&[(CONFIG_FILE, "{}")], "", "it is a model: use --model"),
            (
                &[("first/run.toml", ""), ("other/run.toml", "")],
                "",
                "it holds runs: name one of",
            ),
            (&[("notes.txt", "")], "", "it has no run.toml"),
            (&[(CONFIG, "")], CONFIG, "it is a file of the run in"),
            (
                &[(CONFIG, ""), ("checkpoints/step-5/state.toml", "")],
                "checkpoints/step-5",
                "it is a checkpoint of the run in",
            ),
            (&[], "missing", "there is no such folder"),
        ];
        for (files, inside, message) in cases {
            let folder = folder(files);
            let text = explain_not_a_run(&folder.path().join(inside));
            assert!(text.starts_with(message), "{text}");
        }
    }
}
