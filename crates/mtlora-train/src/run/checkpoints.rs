//! The checkpoints of a run's folder.
//!
//! `checkpoints/step-00000120/` holds `state.safetensors` (the tensors), `state.toml` (the rest),
//! `run.toml` (the run's configuration) and `XXH128SUMS` (their checksums, as `xxhsum --check` reads
//! them). It is written under another name, synced, and renamed: a folder with that name is whole
//! unless the disk damaged it, and then the checksums tell.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use mtlora_core::State;
use mtlora_models::{ModelError, write_atomically, write_checkpoint};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::metrics::labels::{MetricName, Scores};
use crate::run::file_names::CONFIG;
use crate::training::normalization::of_earlier_builds;
use crate::training::optimizer_state::OptimizerState;
use crate::training::options::TrainOptions;
use crate::training::snapshot::{Best, Snapshot};

const PREFIX: &str = "step-";
const TENSORS: &str = "state.safetensors";
const STATE: &str = "state.toml";
const SUMS: &str = "XXH128SUMS";
/// What has a checksum, sorted.
const SUMMED: [&str; 3] = [CONFIG, TENSORS, STATE];
/// Of what is in `state.toml` and how, and of the steps that follow from it.
const FORMAT: u32 = 3;
/// The one before, which is read too: its options do not say what losses are divided by.
const EARLIER_FORMAT: u32 = 2;
/// In `state.safetensors`, before the paths.
const MODEL: &str = "model/";
const BEST: &str = "best/";
const OPTIMIZER: &str = "optimizer/";
/// Only in runs whose adapter method keeps a state; a program from before there were such methods refuses it.
const HOOKS: &str = "hooks/";
/// Bytes that are hashed at a time.
const CHUNK: usize = 1 << 20;

/// What a checkpoint keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointContents {
    /// The training.
    pub snapshot: Snapshot,
    /// The run's configuration, as its `run.toml` has it.
    pub config: String,
    /// How long the metrics log was, in bytes.
    pub log_bytes: u64,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It is not as it was written.
    #[error("{}: is damaged: {reason}", .path.display())]
    Damaged {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is whole, but this program cannot read it.
    #[error(
        "{}: has format {found}, this program knows formats {EARLIER_FORMAT} and {FORMAT}: go on with the version of \
         mtlora that wrote it",
        .path.display()
    )]
    Format {
        /// The checkpoint's folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The operating system refuses.
    #[error("{}: cannot read: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It could not be written, for instance because the disk is full.
    #[error(transparent)]
    Write(#[from] ModelError),
}

/// The checkpoints of a run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Those in `folder`, which need not be there yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder of the checkpoint after `step` steps.
    pub fn path(&self, step: usize) -> PathBuf {
        self.folder.join(format!("{PREFIX}{step:08}"))
    }

    /// The steps after which there is one, whole or not, ascending.
    ///
    /// # Errors
    /// What the operating system says.
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

    /// Writes a checkpoint; when this returns, it is on the disk.
    ///
    /// # Errors
    /// What the operating system says; nothing new is left then, and every other checkpoint is as it was.
    pub fn save(&self, kept: &CheckpointContents) -> Result<PathBuf, CheckpointError> {
        let path = self.path(kept.snapshot.step);
        let staged = self.hidden(&path, "new");
        let written = self.stage(kept, &staged).and_then(|()| {
            if path.exists() {
                // Damaged, or of a future that a run has fallen back from.
                self.remove(&path)?;
            }
            fs::rename(&staged, &path).map_err(|error| ModelError::write(&path, error))?;
            Ok(())
        });
        if let Err(error) = written {
            // The reason to report is the first one.
            let _ = fs::remove_dir_all(&staged);
            return Err(error);
        }
        sync(&self.folder);
        Ok(path)
    }

    fn stage(&self, kept: &CheckpointContents, staged: &Path) -> Result<(), CheckpointError> {
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
        write_atomically(&staged.join(CONFIG), kept.config.as_bytes())?;
        let text = toml::to_string(&Written::of(kept))
            .map_err(|error| at(io::Error::other(error.to_string())))?;
        write_atomically(&staged.join(STATE), text.as_bytes())?;
        let tensors = tensors(&kept.snapshot).map_err(|error| at(io::Error::other(error)))?;
        write_checkpoint(&staged.join(TENSORS), tensors)?;
        write_atomically(&staged.join(SUMS), sums(staged).map_err(at)?.as_bytes())?;
        Ok(())
    }

    /// The checkpoint after `step` steps.
    ///
    /// # Errors
    /// When it is damaged, or cannot be read.
    pub fn load(&self, step: usize) -> Result<CheckpointContents, CheckpointError> {
        let path = self.path(step);
        let damaged = |reason: String| CheckpointError::Damaged {
            path: path.clone(),
            reason,
        };
        // What may be otherwise in a minute (a network's disk, no memory, no rights) is no damage: it would
        // cost the checkpoints that are whole.
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
            return Err(damaged(format!(
                "its files are not those that {SUMS} was made from"
            )));
        }
        let text = |name: &str| {
            let bytes = read(name).map_err(unreadable)?;
            String::from_utf8(bytes).map_err(|error| damaged(format!("{name}: {error}")))
        };
        let state = text(STATE)?;
        let unclear = |error: toml::de::Error| damaged(format!("{STATE}: {error}"));
        let Version { format } = toml::from_str(&state).map_err(unclear)?;
        let written: Written = match format {
            FORMAT => toml::from_str(&state).map_err(unclear)?,
            EARLIER_FORMAT => {
                let mut table: toml::Table = toml::from_str(&state).map_err(unclear)?;
                if let Some(options) = table.get_mut("options").and_then(toml::Value::as_table_mut)
                {
                    of_earlier_builds(options);
                }
                table.try_into().map_err(unclear)?
            }
            found => return Err(CheckpointError::Format { path, found }),
        };
        let tensors = read(TENSORS).map_err(unreadable)?;
        written
            .kept(text(CONFIG)?, &tensors)
            .map_err(|reason| damaged(format!("{TENSORS}: {reason}")))
    }

    /// The newest checkpoint that is whole, and what is wrong with newer ones.
    ///
    /// # Errors
    /// When one is whole, but of another version, or the operating system refuses.
    pub fn newest(
        &self,
    ) -> Result<(Option<CheckpointContents>, Vec<CheckpointError>), CheckpointError> {
        let mut damages = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match self.load(step) {
                Ok(kept) => return Ok((Some(kept), damages)),
                Err(error @ CheckpointError::Damaged { .. }) => damages.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok((None, damages))
    }

    /// Removes all but the newest `most` up to `step`, and the one after `best` steps. Also what a killed
    /// program left, and what is of later steps than `step`: it is damaged, or was made before a run
    /// fell back to where it is now.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn prune(
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

    /// Removes all of them.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn clear(&self) -> Result<(), CheckpointError> {
        for step in self.steps()? {
            self.remove(&self.path(step))?;
        }
        self.sweep()
    }

    /// Removes what a killed program left.
    fn sweep(&self) -> Result<(), CheckpointError> {
        let hidden = format!(".{PREFIX}");
        for name in self.names()? {
            if name.starts_with(&hidden) {
                let path = self.folder.join(name);
                fs::remove_dir_all(&path).map_err(|error| ModelError::write(&path, error))?;
            }
        }
        Ok(())
    }

    /// Removes a checkpoint so that none with its name is ever there in part.
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

/// Makes what was renamed in `folder` durable, where the system can.
fn sync(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// The content of `XXH128SUMS` for the files that are in `folder`.
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

type Named<'a> = (String, Vec<usize>, Cow<'a, [f32]>);

fn tensors(snapshot: &Snapshot) -> Result<Vec<Named<'_>>, String> {
    let best = snapshot.best.iter();
    // What trains is the best itself right after it was found.
    let best = best.filter(|best| best.step != snapshot.step);
    let all = best
        .map(|best| (BEST, &best.values))
        .chain([(MODEL, &snapshot.model)])
        .chain([(OPTIMIZER, &snapshot.optimizer.tensors)])
        .chain([(HOOKS, &snapshot.hooks)]);
    let mut tensors = Vec::new();
    for (prefix, state) in all {
        for (path, data) in state {
            let values = data
                .as_slice::<f32>()
                .map_err(|error| format!("{path}: {error:?}"))?;
            let shape = data.shape().to_vec();
            tensors.push((format!("{prefix}{path}"), shape, Cow::Borrowed(values)));
        }
    }
    Ok(tensors)
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// `state.toml`. Scores are lists, since a table would lose their order; TOML's numbers are 64 bits with a
/// sign, so that the random state is hexadecimal.
#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    /// The program's version.
    version: String,
    step: usize,
    tokens: usize,
    seconds: f64,
    waited: usize,
    random: String,
    log_bytes: u64,
    data: String,
    base: String,
    before: Vec<(MetricName, f64)>,
    last: Vec<(MetricName, f64)>,
    best: Option<WrittenBest>,
    options: TrainOptions,
    optimizer: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
struct WrittenBest {
    step: usize,
    scores: Vec<(MetricName, f64)>,
}

fn listed(scores: &Scores) -> Vec<(MetricName, f64)> {
    scores.iter().collect()
}

fn scores(list: Vec<(MetricName, f64)>) -> Scores {
    let mut scores = Scores::default();
    for (name, value) in list {
        scores.set(name, value);
    }
    scores
}

impl Written {
    fn of(kept: &CheckpointContents) -> Self {
        let snapshot = &kept.snapshot;
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_string(),
            step: snapshot.step,
            tokens: snapshot.tokens,
            seconds: snapshot.seconds,
            waited: snapshot.evals_since_best,
            random: format!("{:016x}", snapshot.random),
            log_bytes: kept.log_bytes,
            data: snapshot.data.clone(),
            base: snapshot.base.clone(),
            before: listed(&snapshot.before),
            last: listed(&snapshot.last),
            best: snapshot.best.as_ref().map(|best| WrittenBest {
                step: best.step,
                scores: listed(&best.scores),
            }),
            options: snapshot.options.clone(),
            optimizer: snapshot.optimizer.counters.clone(),
        }
    }

    fn kept(self, config: String, tensors: &[u8]) -> Result<CheckpointContents, String> {
        let [mut model, mut best, mut moments, mut hooks] = [const { State::new() }; 4];
        let file = SafeTensors::deserialize(tensors).map_err(|error| error.to_string())?;
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(format!("`{name}` is {:?}, not F32", view.dtype()));
            }
            let parts = [(MODEL, &mut model), (BEST, &mut best)];
            let place = parts
                .into_iter()
                .chain([(OPTIMIZER, &mut moments), (HOOKS, &mut hooks)])
                .find_map(|(prefix, state)| Some((name.strip_prefix(prefix)?, state)));
            let Some((path, state)) = place else {
                return Err(format!("`{name}` is unknown"));
            };
            let (chunks, _) = view.data().as_chunks::<4>();
            let values: Vec<f32> = chunks.iter().map(|one| f32::from_le_bytes(*one)).collect();
            state.insert(
                path.to_string(),
                TensorData::new(values, view.shape().to_vec()),
            );
        }
        let best = self.best.map(|written| Best {
            values: match written.step == self.step {
                true => model.clone(),
                false => best,
            },
            scores: scores(written.scores),
            step: written.step,
        });
        let random = u64::from_str_radix(&self.random, 16)
            .map_err(|_| format!("`random` is {}", self.random))?;
        let snapshot = Snapshot {
            options: self.options,
            step: self.step,
            tokens: self.tokens,
            seconds: self.seconds,
            evals_since_best: self.waited,
            random,
            before: scores(self.before),
            last: scores(self.last),
            best,
            model,
            optimizer: OptimizerState {
                tensors: moments,
                counters: self.optimizer,
            },
            hooks,
            data: self.data,
            base: self.base,
        };
        Ok(CheckpointContents {
            snapshot,
            config,
            log_bytes: self.log_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::training::normalization::LossNormalization;

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
        // The order is not that of the alphabet, and the number has no short form.
        scores.set(MetricName::Matthews, 0.1 + 0.2);
        scores.set(MetricName::Accuracy, f64::NEG_INFINITY);
        let model = state(&["a", "b.c"], step as f32);
        let values = match step == best {
            true => model.clone(),
            false => state(&["a", "b.c"], best as f32),
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
                data: "d".into(),
                base: "b".into(),
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
    fn what_is_kept_comes_back_to_the_bit() {
        let (_folder, checkpoints) = checkpoints(&[]);
        assert!(checkpoints.newest().unwrap().0.is_none());
        for (step, best) in [(1, 1), (3, 1)] {
            let kept = kept(step, best);
            let path = checkpoints.save(&kept).unwrap();
            assert_eq!(checkpoints.load(step).unwrap(), kept);
            let tensors = fs::read(path.join(TENSORS)).unwrap();
            // Again, over itself: the same bytes.
            checkpoints.save(&kept).unwrap();
            assert_eq!(fs::read(path.join(TENSORS)).unwrap(), tensors);
        }
        assert_eq!(checkpoints.steps().unwrap(), [1, 3]);
        assert_eq!(checkpoints.names().unwrap().len(), 2);
    }

    /// The newest is damaged: the one before is found, and what is wrong is said.
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
    fn the_newest_and_the_best_stay() {
        let (_folder, checkpoints) = checkpoints(&[1, 2, 3, 4, 5, 6]);
        fs::create_dir(checkpoints.folder.join(".step-00000009.new")).unwrap();
        // The run has fallen back to 5: 6 is damaged.
        checkpoints.prune(5, Some(2), 2).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [2, 4, 5]);
        assert_eq!(checkpoints.names().unwrap().len(), 3);
        checkpoints.prune(5, None, 1).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [5]);
        checkpoints.clear().unwrap();
        assert!(checkpoints.names().unwrap().is_empty());
    }

    #[test]
    fn another_version_is_no_damage() {
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
    fn one_of_the_format_before_goes_on_as_it_began() {
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
    fn one_that_cannot_be_written_leaves_the_others() {
        let (_folder, checkpoints) = checkpoints(&[1]);
        // A file where the new folder is made.
        let mut broken = kept(2, 1);
        broken.snapshot.model = State::from([("a".to_string(), TensorData::from([1i64]))]);
        assert!(checkpoints.save(&broken).is_err());
        assert_eq!(checkpoints.names().unwrap(), ["step-00000001"]);
        assert_eq!(checkpoints.newest().unwrap().0, Some(kept(1, 1)));
    }
}
