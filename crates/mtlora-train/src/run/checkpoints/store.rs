//! Reads and writes the checkpoints in a run's folder.
//!
//! `checkpoints/step-00000120/` has `state.safetensors` (the tensors), `state.toml` (everything else), `run.toml`
//! (the run's configuration) and `XXH128SUMS` (their checksums, which `xxhsum --check` can verify). A checkpoint is
//! written under a temporary name, synced and then renamed. A folder with the final name is therefore complete unless
//! the disk damaged it, which the checksums reveal.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use mtlora_models::{ModelError, write_atomically, write_checkpoint};
use xxhash_rust::xxh3::Xxh3;

use crate::run::checkpoints::contents::{
    CheckpointContents, ContentsError, EARLIER_FORMAT, FORMAT,
};
use crate::run::file_names::CONFIG;

const PREFIX: &str = "step-";
const TENSORS: &str = "state.safetensors";
const STATE: &str = "state.toml";
const SUMS: &str = "XXH128SUMS";
/// The files with a checksum, sorted by name.
const SUMMED: [&str; 3] = [CONFIG, TENSORS, STATE];
/// The number of bytes that are hashed together.
const CHUNK: usize = 1 << 20;

/// The reason why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The files are not those that were written.
    #[error("{}: is damaged: {reason}", .path.display())]
    Damaged {
        /// The checkpoint's folder.
        path: PathBuf,
        /// A description of the damage.
        reason: String,
    },
    /// The checkpoint is complete, but this program cannot read its format.
    #[error(
        "{}: has format {found}, but this program reads only formats {EARLIER_FORMAT} and {FORMAT}; resume the run \
         with the version of mtlora that wrote it",
        .path.display()
    )]
    Format {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The format of the checkpoint.
        found: u32,
    },
    /// A file cannot be read.
    #[error("{}: cannot read: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The checkpoint cannot be written, for example because the disk is full.
    #[error(transparent)]
    Write(#[from] ModelError),
}

/// The checkpoints of a run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// The checkpoints in `folder`, which need not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder of the checkpoint after `step` steps.
    pub fn path(&self, step: usize) -> PathBuf {
        self.folder.join(format!("{PREFIX}{step:08}"))
    }

    /// The steps that have a checkpoint, complete or damaged, in ascending order.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn steps(&self) -> Result<Vec<usize>, CheckpointError> {
        let mut steps: Vec<usize> = self
            .names()?
            .iter()
            .filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok())
            .collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let at = |source| CheckpointError::Io {
            path: self.folder.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(error)),
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            Ok(entry
                .map_err(at)?
                .file_name()
                .to_string_lossy()
                .into_owned())
        };
        entries.map(name).collect()
    }

    /// Writes a checkpoint. When this returns, it is stored durably on the disk.
    ///
    /// # Errors
    /// If it cannot be written. Nothing of it is left then, and the other checkpoints are unchanged.
    pub fn save(&self, contents: &CheckpointContents) -> Result<PathBuf, CheckpointError> {
        let path = self.path(contents.snapshot.step);
        let staged = self.hidden(&path, "new");
        let written = self.stage(contents, &staged).and_then(|()| {
            if path.exists() {
                // The existing checkpoint is damaged, or was made before the run fell back to an earlier step.
                self.remove(&path)?;
            }
            fs::rename(&staged, &path).map_err(|error| ModelError::write(&path, error))?;
            Ok(())
        });
        if let Err(error) = written {
            // If removing the files fails, too, the first error is the one to report.
            let _ = fs::remove_dir_all(&staged);
            return Err(error);
        }
        sync(&self.folder);
        Ok(path)
    }

    fn stage(&self, contents: &CheckpointContents, staged: &Path) -> Result<(), CheckpointError> {
        let at = |error| ModelError::write(staged, error);
        if !self.folder.exists() {
            fs::create_dir_all(&self.folder).map_err(at)?;
            if let Some(run) = self.folder.parent() {
                sync(run);
            }
        }
        if staged.exists() {
            fs::remove_dir_all(staged).map_err(at)?;
        }
        fs::create_dir(staged).map_err(at)?;
        write_atomically(&staged.join(CONFIG), contents.config.as_bytes())?;
        let text = contents
            .state_text()
            .map_err(|error| at(io::Error::other(error.to_string())))?;
        write_atomically(&staged.join(STATE), text.as_bytes())?;
        let tensors = contents
            .tensors()
            .map_err(|error| at(io::Error::other(error)))?;
        write_checkpoint(&staged.join(TENSORS), tensors)?;
        write_atomically(&staged.join(SUMS), sums(staged).map_err(at)?.as_bytes())?;
        Ok(())
    }

    /// Reads the checkpoint after `step` steps.
    ///
    /// # Errors
    /// If it is damaged, or cannot be read.
    pub fn load(&self, step: usize) -> Result<CheckpointContents, CheckpointError> {
        let path = self.path(step);
        let damaged = |reason: String| CheckpointError::Damaged {
            path: path.clone(),
            reason,
        };
        // Other errors (of a network disk, or for lack of memory or permissions) do not mean that the checkpoint is
        // damaged; treating them as damage would discard a checkpoint that may be good.
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory => damaged(error.to_string()),
            _ => CheckpointError::Io {
                path: path.clone(),
                source: error,
            },
        };
        let read = |name: &str| {
            fs::read(path.join(name))
                .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
        };
        let sums = sums(&path).map_err(unreadable)?;
        if read(SUMS).map_err(unreadable)? != sums.as_bytes() {
            return Err(damaged(format!("its files do not match {SUMS}")));
        }
        let text = |name: &str| {
            let bytes = read(name).map_err(unreadable)?;
            String::from_utf8(bytes).map_err(|error| damaged(format!("{name}: {error}")))
        };
        let (state, config) = (text(STATE)?, text(CONFIG)?);
        let tensors = read(TENSORS).map_err(unreadable)?;
        CheckpointContents::read(&state, config, &tensors).map_err(|error| match error {
            ContentsError::Format(found) => CheckpointError::Format {
                path: path.clone(),
                found,
            },
            ContentsError::State(reason) => damaged(format!("{STATE}: {reason}")),
            ContentsError::Tensors(reason) => damaged(format!("{TENSORS}: {reason}")),
        })
    }

    /// The newest undamaged checkpoint, and the errors of newer ones.
    ///
    /// # Errors
    /// If an undamaged checkpoint has an unknown format, or a file cannot be read.
    pub fn newest(
        &self,
    ) -> Result<(Option<CheckpointContents>, Vec<CheckpointError>), CheckpointError> {
        let mut damages = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match self.load(step) {
                Ok(contents) => return Ok((Some(contents), damages)),
                Err(error @ CheckpointError::Damaged { .. }) => damages.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok((None, damages))
    }

    /// Removes all checkpoints except the newest `most` up to `step` and the one after `best` steps. Also removes
    /// unfinished files of a killed program and checkpoints after `step`, which are damaged or were made before the
    /// run fell back to an earlier step.
    ///
    /// # Errors
    /// If the files cannot be removed.
    pub(crate) fn prune(
        &self,
        step: usize,
        best: Option<usize>,
        most: usize,
    ) -> Result<(), CheckpointError> {
        let steps = self.steps()?;
        let past: Vec<usize> = steps.iter().copied().filter(|one| *one <= step).collect();
        let newest = &past[past.len().saturating_sub(most)..];
        for one in steps {
            if !newest.contains(&one) && best != Some(one) {
                self.remove(&self.path(one))?;
            }
        }
        self.sweep()
    }

    /// Removes all checkpoints.
    ///
    /// # Errors
    /// If the files cannot be removed.
    pub fn clear(&self) -> Result<(), CheckpointError> {
        for step in self.steps()? {
            self.remove(&self.path(step))?;
        }
        self.sweep()
    }

    /// Removes unfinished files of a killed program.
    pub(crate) fn sweep(&self) -> Result<(), CheckpointError> {
        let hidden = format!(".{PREFIX}");
        for name in self.names()? {
            if name.starts_with(&hidden) {
                let path = self.folder.join(name);
                fs::remove_dir_all(&path).map_err(|error| ModelError::write(&path, error))?;
            }
        }
        Ok(())
    }

    /// Removes a checkpoint. At no time is a partial checkpoint left under its name.
    fn remove(&self, path: &Path) -> Result<(), CheckpointError> {
        let old = self.hidden(path, "old");
        let at = |error| ModelError::write(path, error);
        if old.exists() {
            fs::remove_dir_all(&old).map_err(at)?;
        }
        fs::rename(path, &old).map_err(at)?;
        fs::remove_dir_all(&old).map_err(at)?;
        Ok(())
    }

    fn hidden(&self, path: &Path, kind: &str) -> PathBuf {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.folder.join(format!(".{name}.{kind}"))
    }
}

/// Makes renames in `folder` durable, where the system supports it.
fn sync(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// The content of `XXH128SUMS` for the files in `folder`.
fn sums(folder: &Path) -> io::Result<String> {
    let mut text = String::new();
    for name in SUMMED {
        let at = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
        let mut file = File::open(folder.join(name)).map_err(at)?;
        let (mut hash, mut chunk) = (Xxh3::new(), vec![0; CHUNK]);
        loop {
            let count = file.read(&mut chunk).map_err(at)?;
            if count == 0 {
                break;
            }
            hash.update(&chunk[..count]);
        }
        text.push_str(&format!("{:032x}  {name}\n", hash.digest128()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use burn::tensor::TensorData;
    use mtlora_core::State;

    use super::*;
    use crate::metrics::labels::{MetricName, Scores};
    use crate::training::normalization::LossNormalization;
    use crate::training::optimizer::state::OptimizerState;
    use crate::training::options::TrainOptions;
    use crate::training::snapshot::{Best, Fingerprints, Snapshot};

    fn state(names: &[&str], start: f32) -> State {
        let data = |index: usize| {
            let first = start + index as f32;
            TensorData::new(vec![first, -0.0, f32::MIN_POSITIVE, f32::INFINITY], [2, 2])
        };
        let named = names.iter().enumerate();
        named
            .map(|(index, name)| (name.to_string(), data(index)))
            .collect()
    }

    fn kept(step: usize, best: usize) -> CheckpointContents {
        let mut scores = Scores::default();
        // The names are not in alphabetical order, and the number has no short decimal form.
        scores.set(MetricName::Matthews, 0.1 + 0.2);
        scores.set(MetricName::Accuracy, f64::NEG_INFINITY);
        let model = state(&["a", "b.c"], step as f32);
        let values = if step == best {
            model.clone()
        } else {
            state(&["a", "b.c"], best as f32)
        };
        let optimizer = OptimizerState {
            tensors: state(&["a/m", "b.c/m"], 7.0),
            counters: BTreeMap::from([("a/time".to_string(), step as u64)]),
        };
        CheckpointContents {
            snapshot: Snapshot {
                options: TrainOptions::default(),
                step,
                tokens: 12345,
                seconds: 1.0 / 3.0,
                evals_since_best: step - best,
                random: u64::MAX - 1,
                before: scores.clone(),
                last: scores.clone(),
                best: Some(Best {
                    scores,
                    step: best,
                    values,
                }),
                model,
                optimizer,
                hooks: State::new(),
                fingerprints: Fingerprints {
                    data: "d".into(),
                    base: "b".into(),
                },
            },
            config: "task = 'sea'\n".into(),
            log_bytes: 99,
        }
    }

    fn checkpoints(steps: &[usize]) -> (tempfile::TempDir, Checkpoints) {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path().join("checkpoints"));
        for step in steps {
            checkpoints.save(&kept(*step, 1)).unwrap();
        }
        (folder, checkpoints)
    }

    #[test]
    fn checkpoints_are_read_back_bit_for_bit() {
        let (_folder, checkpoints) = checkpoints(&[]);
        assert!(checkpoints.newest().unwrap().0.is_none());
        for (step, best) in [(1, 1), (3, 1)] {
            let kept = kept(step, best);
            let path = checkpoints.save(&kept).unwrap();
            assert_eq!(checkpoints.load(step).unwrap(), kept);
            let tensors = fs::read(path.join(TENSORS)).unwrap();
            // Saving it again over itself writes the same bytes.
            checkpoints.save(&kept).unwrap();
            assert_eq!(fs::read(path.join(TENSORS)).unwrap(), tensors);
        }
        assert_eq!(checkpoints.steps().unwrap(), [1, 3]);
        assert_eq!(checkpoints.names().unwrap().len(), 2);
    }

    /// Checks that the damaged newest checkpoint is skipped for the one before, with an error.
    fn falls_back(checkpoints: &Checkpoints, what: &str) {
        let (found, damages) = checkpoints.newest().unwrap();
        assert_eq!(found, Some(kept(1, 1)), "{what}");
        let text = damages[0].to_string();
        assert!(text.contains("step-00000002: is damaged: "), "{text}");
        assert_eq!(damages.len(), 1);
    }

    #[test]
    fn a_checkpoint_cut_at_any_length_is_damaged() {
        let (_folder, checkpoints) = checkpoints(&[1, 2]);
        for name in SUMMED.iter().chain(&[SUMS]) {
            let path = checkpoints.path(2).join(name);
            let whole = fs::read(&path).unwrap();
            for length in 0..whole.len() {
                fs::write(&path, &whole[..length]).unwrap();
                falls_back(&checkpoints, &format!("{name} cut to {length}"));
            }
            fs::remove_file(&path).unwrap();
            falls_back(&checkpoints, &format!("no {name}"));
            fs::write(&path, &whole).unwrap();
            assert_eq!(checkpoints.newest().unwrap().0, Some(kept(2, 1)));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_damage() {
        let (_folder, checkpoints) = checkpoints(&[1, 2]);
        for name in SUMMED.iter().chain(&[SUMS]) {
            let path = checkpoints.path(2).join(name);
            let whole = fs::read(&path).unwrap();
            for position in 0..whole.len() {
                let mut flipped = whole.clone();
                flipped[position] ^= 1 << (position % 8);
                fs::write(&path, &flipped).unwrap();
                falls_back(&checkpoints, &format!("{name} flipped at {position}"));
            }
            fs::write(&path, &whole).unwrap();
        }
    }

    #[test]
    fn the_newest_and_the_best_checkpoints_are_kept() {
        let (_folder, checkpoints) = checkpoints(&[1, 2, 3, 4, 5, 6]);
        fs::create_dir(checkpoints.folder.join(".step-00000009.new")).unwrap();
        // The run has fallen back to step 5, because the checkpoint of step 6 is damaged.
        checkpoints.prune(5, Some(2), 2).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [2, 4, 5]);
        assert_eq!(checkpoints.names().unwrap().len(), 3);
        checkpoints.prune(5, None, 1).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [5]);
        checkpoints.clear().unwrap();
        assert!(checkpoints.names().unwrap().is_empty());
    }

    #[test]
    fn another_format_is_not_damage() {
        let (_folder, checkpoints) = checkpoints(&[1, 2]);
        let path = checkpoints.path(2);
        let text = fs::read_to_string(path.join(STATE)).unwrap();
        let text = text.replacen("format = 3", "format = 4", 1);
        fs::write(path.join(STATE), text).unwrap();
        fs::write(path.join(SUMS), sums(&path).unwrap()).unwrap();
        let error = checkpoints.newest().unwrap_err();
        assert!(error.to_string().contains("has format 4"), "{error}");
    }

    #[test]
    fn a_checkpoint_of_the_previous_format_keeps_its_loss_normalization() {
        let (_folder, checkpoints) = checkpoints(&[1, 2]);
        let path = checkpoints.path(2);
        let text = fs::read_to_string(path.join(STATE)).unwrap();
        let text = text.replacen("format = 3", "format = 2", 1);
        let earlier = text.replacen("loss_normalization = \"step\"\n", "", 1);
        assert!(earlier.len() < text.len());
        fs::write(path.join(STATE), earlier).unwrap();
        fs::write(path.join(SUMS), sums(&path).unwrap()).unwrap();
        let mut expected = kept(2, 1);
        expected.snapshot.options.loss_normalization = LossNormalization::Batch;
        assert_eq!(checkpoints.load(2).unwrap(), expected);
    }

    #[test]
    fn a_failed_write_leaves_the_other_checkpoints() {
        let (_folder, checkpoints) = checkpoints(&[1]);
        // A tensor of integers cannot be written.
        let mut broken = kept(2, 1);
        broken.snapshot.model = State::from([("a".to_string(), TensorData::from([1i64]))]);
        assert!(checkpoints.save(&broken).is_err());
        assert_eq!(checkpoints.names().unwrap(), ["step-00000001"]);
        assert_eq!(checkpoints.newest().unwrap().0, Some(kept(1, 1)));
    }
}
