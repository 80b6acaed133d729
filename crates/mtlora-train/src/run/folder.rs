//! A run's folder, with its configuration, its trained values and its log.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mtlora_core::State;
use mtlora_models::{
    ADAPTER_CONFIG_FILE, ADAPTER_PICKLE_FILE, ADAPTER_WEIGHTS_FILE, ModelError, TRAINED_FILE,
    TrainedFormat, write_atomically,
};

use crate::observe::tensorboard::{has_event_files, remove_event_files};
use crate::run::checkpoints::store::Checkpoints;
use crate::run::config::file;
use crate::run::config::settings::RunConfig;
use crate::run::error::RunError;
use crate::run::file_names::{CARD, CHECKPOINTS, CONFIG, CURVES, LOCK, LOG, RESULTS, SETTINGS};
use crate::run::log::MetricsLog;
use crate::run::results::RunResults;
use crate::run::unfinished::{Unfinished, explain_not_a_run, run_of_checkpoint};
use crate::training::snapshot::{ResumeError, Snapshot, changed};

/// The files with trained values.
const WEIGHTS: [&str; 4] = [
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    ADAPTER_PICKLE_FILE,
    TRAINED_FILE,
];
/// The files that a run writes, except for checkpoints, event files and the lock.
const FILES: [&str; 10] = [
    CONFIG,
    SETTINGS,
    RESULTS,
    CARD,
    CURVES,
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    ADAPTER_PICKLE_FILE,
    TRAINED_FILE,
    LOG,
];
/// The number of further attempts to lock a run while another process holds the lock.
const LOCK_TRIES: usize = 4;
/// The pause before each attempt.
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// The point from which a run is resumed.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewound {
    /// The state from which the training is resumed; `None` means from the beginning.
    pub snapshot: Option<Snapshot>,
    /// Notes for the user, one line each.
    pub notes: Vec<String>,
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct Run {
    folder: PathBuf,
    /// The lock, which is held while the run is trained.
    _lock: Option<Arc<File>>,
}

impl Run {
    /// Creates a folder with the configuration of a new run, and locks it for training.
    ///
    /// # Errors
    /// If the folder is not empty and `overwrite` is false, if it has files that a run would replace and is not a run's, if
    /// another process is training a run in it, or if it cannot be written.
    pub fn create(folder: &Path, overwrite: bool, config: &RunConfig) -> Result<Self, RunError> {
        let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if occupied && !overwrite {
            let place = folder.to_path_buf();
            return Err(match Unfinished::find(folder) {
                Some(unfinished) => RunError::UnfinishedThere(unfinished),
                None => RunError::NotEmpty { folder: place },
            });
        }
        if !Self::is_in(folder)
            && let Some(file) = replaced_in(folder)
        {
            return Err(RunError::OverwritesOthers {
                folder: folder.to_path_buf(),
                file,
            });
        }
        fs::create_dir_all(folder).map_err(|error| ModelError::write(folder, error))?;
        let run = Self::locked(folder)?;
        // The text is made before an older run is removed, because a path that is not Unicode cannot be written.
        let text =
            file::write(config).map_err(|error| RunError::invalid(run.path(CONFIG), error))?;
        run.remove(&[RESULTS])?;
        // Until the checkpoints are gone the folder has the older run, which can be resumed. After that it has the new
        // one, whose resumption removes the log. So if the program is killed, the folder is always a run.
        run.remove(&WEIGHTS)?;
        run.checkpoints().clear()?;
        write_atomically(&run.path(CONFIG), text.as_bytes())?;
        run.remove(&[LOG, SETTINGS, CARD, CURVES])?;
        run.sweep()?;
        remove_event_files(folder)?;
        Ok(run)
    }

    /// Removes those of its files that exist.
    fn remove(&self, names: &[&str]) -> Result<(), RunError> {
        for path in names.iter().map(|name| self.path(name)) {
            if path.exists() {
                fs::remove_file(&path).map_err(|error| ModelError::write(&path, error))?;
            }
        }
        Ok(())
    }

    /// Opens the run in `folder` and reads its configuration.
    ///
    /// # Errors
    /// If the folder has no readable `run.toml`, or its format is unknown.
    pub fn open(folder: &Path) -> Result<(Self, RunConfig), RunError> {
        let path = folder.join(CONFIG);
        // A checkpoint has a copy of the configuration.
        if run_of_checkpoint(folder).is_some() {
            return Err(RunError::NotARun {
                folder: folder.to_path_buf(),
                reason: explain_not_a_run(folder),
            });
        }
        let text = fs::read_to_string(&path).map_err(|error| {
            let reason = match error.kind() {
                // The path may be that of a file.
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    explain_not_a_run(path.parent().unwrap_or(&path))
                }
                _ => format!("cannot read its {CONFIG}: {error}"),
            };
            RunError::NotARun {
                folder: folder.to_path_buf(),
                reason,
            }
        })?;
        let config = file::read(&text).map_err(|error| RunError::invalid(&path, error))?;
        let run = Self {
            folder: folder.to_path_buf(),
            _lock: None,
        };
        Ok((run, config))
    }

    /// Locks the run for training. Until the result is dropped, no other process can train it.
    ///
    /// # Errors
    /// If another process is training the run.
    pub fn lock(self) -> Result<Self, RunError> {
        Self::locked(&self.folder)
    }

    fn locked(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join(LOCK);
        let at = |error| ModelError::write(&path, error);
        let options = OpenOptions::new().create(true).append(true).clone();
        let file = options.open(&path).map_err(at)?;
        let mut locked = file.try_lock();
        // A check whether the run is being trained holds the lock for a moment, so it is worth trying again.
        for _ in 0..LOCK_TRIES {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(RunError::Locked {
                    folder: folder.to_path_buf(),
                });
            }
            // Some file systems do not support locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(at(error).into()),
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            _lock: Some(Arc::new(file)),
        })
    }

    /// Whether `folder` is a run's folder and not only that of an adapter.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(CONFIG).exists()
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run's metrics log.
    pub fn log(&self) -> MetricsLog {
        MetricsLog::of_run(&self.folder)
    }

    /// Keeps the settings that the run was started with, as the text of a settings file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_settings(&self, text: &str) -> Result<(), RunError> {
        Ok(write_atomically(&self.path(SETTINGS), text.as_bytes())?)
    }

    /// The settings that the run was started with, as the text of a settings file; `None` if they were not kept.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn settings(&self) -> Result<Option<String>, RunError> {
        let path = self.path(SETTINGS);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RunError::invalid(&path, error)),
        }
    }

    /// Writes the results of the run, which marks it as complete.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_results(&self, results: &RunResults) -> Result<(), RunError> {
        Ok(results.write(&self.folder)?)
    }

    /// The results of the run, if it is complete.
    ///
    /// # Errors
    /// If `results.json` is invalid or cannot be read.
    pub fn results(&self) -> Result<Option<RunResults>, RunError> {
        RunResults::read(&self.folder).map_err(|error| {
            let path = self.path(RESULTS);
            if error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::UnexpectedEof {
                let folder = self.folder.display();
                let advice = format!(
                    "the file is damaged ({error}); delete it, and then mtlora train --resume {folder} writes it again"
                );
                return RunError::invalid(&path, advice);
            }
            RunError::invalid(&path, error)
        })
    }

    /// The run's checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.path(CHECKPOINTS))
    }

    /// Resets the folder to its newest undamaged checkpoint, or to the beginning if there is none.
    ///
    /// # Errors
    /// If a setting in `run.toml` has changed that must not, the checkpoint has an unknown format, or a file cannot
    /// be read or written.
    pub fn rewind(&self, format: &TrainedFormat) -> Result<Rewound, RunError> {
        self.sweep()?;
        self.checkpoints().sweep()?;
        let (kept, damages) = self.checkpoints().newest()?;
        let mut notes: Vec<String> = damages.iter().map(ToString::to_string).collect();
        let Some(kept) = kept else {
            let why = if damages.is_empty() {
                "there is no checkpoint yet"
            } else {
                "every checkpoint is damaged"
            };
            notes.push(format!("{why}: the run starts from the beginning"));
            self.log().cut(0)?;
            remove_event_files(&self.folder)?;
            return Ok(Rewound {
                snapshot: None,
                notes,
            });
        };
        let step = kept.snapshot.step;
        if let Some(error) = self.changed(step, &kept.config)? {
            return Err(error.into());
        }
        notes.push(if damages.is_empty() {
            format!("resuming after step {step}")
        } else {
            format!("resuming from the last undamaged checkpoint, after step {step}")
        });
        if self.log().cut(kept.log_bytes)? < kept.log_bytes {
            notes.push(format!("{LOG} lacks lines from before step {step}"));
        }
        if let Some(best) = &kept.snapshot.best {
            self.save_state(format, &best.values)?;
        }
        Ok(Rewound {
            snapshot: Some(kept.snapshot),
            notes,
        })
    }

    /// The first setting that has changed since the checkpoint after `step` steps although it must not. `earlier` is
    /// the checkpoint's copy of `run.toml`.
    fn changed(&self, step: usize, earlier: &str) -> Result<Option<ResumeError>, RunError> {
        let own = self.path(CONFIG);
        let copy = self.checkpoints().path(step).join(CONFIG);
        let read = |path: &Path, text: &str| {
            file::read(text).map_err(|error| RunError::invalid(path, error))
        };
        let table = |path: &Path, config: &RunConfig| {
            toml::Table::try_from(config).map_err(|error| RunError::invalid(path, error))
        };
        let is = read(&own, &self.config_text()?)?;
        let mut was = read(&copy, earlier)?;
        was.change(is.changeable());
        Ok(changed(&table(&copy, &was)?, &table(&own, &is)?))
    }

    /// Removes unfinished files of a killed program.
    fn sweep(&self) -> Result<(), RunError> {
        let at = |error| ModelError::write(&self.folder, error);
        for entry in fs::read_dir(&self.folder).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let begun = |file: &&str| name.starts_with(&format!(".{file}."));
            if name.ends_with(".tmp") && FILES.iter().any(begun) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|error| ModelError::write(&path, error))?;
            }
        }
        Ok(())
    }

    /// The text of `run.toml`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn config_text(&self) -> Result<String, RunError> {
        let path = self.path(CONFIG);
        fs::read_to_string(&path).map_err(|error| RunError::Read {
            path: path.clone(),
            source: error,
        })
    }

    /// Writes the trained values, for an adapter in PEFT's format. Existing values are replaced only when the new
    /// ones are complete.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save_state(&self, format: &TrainedFormat, values: &State) -> Result<(), RunError> {
        Ok(format.write(&self.folder, values)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// What is in a folder that a new run would replace or remove.
fn replaced_in(folder: &Path) -> Option<&'static str> {
    let all = FILES.into_iter().chain([CHECKPOINTS]);
    let mut there = all.filter(|file| folder.join(file).exists());
    there.next().or_else(|| {
        let has_events = has_event_files(folder);
        has_events.then_some("the event files")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::run::config::settings::example;

    /// The program may be killed at any point. Here, removing the checkpoints fails instead.
    #[test]
    fn a_folder_that_is_being_overwritten_is_always_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let earlier = Run::create(folder.path(), false, &example()).unwrap();
        drop(earlier);
        let put = |name: &str| fs::write(folder.path().join(name), "x").unwrap();
        for name in [RESULTS, ADAPTER_WEIGHTS_FILE, LOG, CHECKPOINTS] {
            put(name);
        }
        let mut config = example();
        config.training.epochs = 77;
        assert!(Run::create(folder.path(), true, &config).is_err());
        let (run, found) = Run::open(folder.path()).unwrap();
        assert_eq!(found, example());
        assert_eq!(run.results().unwrap(), None);

        fs::remove_file(folder.path().join(CHECKPOINTS)).unwrap();
        drop(Run::create(folder.path(), true, &config).unwrap());
        assert_eq!(Run::open(folder.path()).unwrap().1, config);
        let gone = [RESULTS, ADAPTER_WEIGHTS_FILE, LOG];
        assert!(gone.iter().all(|name| !folder.path().join(name).exists()));
    }

    #[test]
    fn what_is_not_a_run_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join(CARD);
        fs::write(&own, "mine").unwrap();
        let refused = |overwrite| Run::create(folder.path(), overwrite, &example()).unwrap_err();
        assert!(matches!(refused(false), RunError::NotEmpty { .. }));
        let error = refused(true);
        assert!(
            matches!(error, RunError::OverwritesOthers { file: CARD, .. }),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&own).unwrap(), "mine");
        for name in [CHECKPOINTS, "events.out.tfevents.1"] {
            fs::rename(&own, folder.path().join(name)).unwrap();
            let error = refused(true);
            assert!(
                matches!(error, RunError::OverwritesOthers { .. }),
                "{error}"
            );
            fs::rename(folder.path().join(name), &own).unwrap();
        }
        // Other files do not matter.
        fs::rename(&own, folder.path().join("output.txt")).unwrap();
        drop(Run::create(folder.path(), true, &example()).unwrap());
        let error = refused(false).to_string();
        let resume = format!("mtlora train --resume {}", folder.path().display());
        assert!(
            error.contains("unfinished") && error.contains(&resume),
            "{error}"
        );
        drop(Run::create(folder.path(), true, &example()).unwrap());
    }

    #[test]
    fn unfinished_files_of_a_killed_program_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::create(folder.path(), false, &example()).unwrap();
        let put = |name: &str| fs::write(folder.path().join(name), "x").unwrap();
        put(".adapter_model.safetensors.41-0.tmp");
        put(".trained.safetensors.41-1.tmp");
        // These files do not belong to the run.
        put(".notes.41-0.tmp");
        put(".adapter_model.safetensors.backup");
        run.sweep().unwrap();
        let mut left: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let expected = [
            ".adapter_model.safetensors.backup",
            LOCK,
            ".notes.41-0.tmp",
            CONFIG,
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn an_error_of_a_configuration_names_the_file_that_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::create(folder.path(), false, &example()).unwrap();
        let own = folder.path().join(CONFIG);
        let copy = run.checkpoints().path(7).join(CONFIG);
        let whole = fs::read_to_string(&own).unwrap();
        assert!(run.changed(7, &whole).unwrap().is_none());
        let named = |earlier: &str| match run.changed(7, earlier) {
            Err(RunError::Invalid { path, .. }) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(named("not TOML"), copy);
        fs::write(&own, "not TOML").unwrap();
        assert_eq!(named(&whole), own);
    }

    #[test]
    #[cfg(unix)]
    fn a_run_is_kept_if_the_new_settings_cannot_be_written() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let folder = tempfile::tempdir().unwrap();
        drop(Run::create(folder.path(), false, &example()).unwrap());
        let before = fs::read(folder.path().join(CONFIG)).unwrap();
        let mut config = example();
        config.base.model = PathBuf::from(OsStr::from_bytes(b"model-\xff"));
        let error = Run::create(folder.path(), true, &config).unwrap_err();
        assert!(
            matches!(&error, RunError::Invalid { path, .. } if *path == folder.path().join(CONFIG)),
            "{error}"
        );
        assert_eq!(fs::read(folder.path().join(CONFIG)).unwrap(), before);
    }
}
