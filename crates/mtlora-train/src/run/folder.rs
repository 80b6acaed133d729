//! A run's folder: what it was told, what it learned, and how it went.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Device;
use mtlora_core::State;
use mtlora_models::{
    ADAPTER_CONFIG_FILE, ADAPTER_PICKLE_FILE, ADAPTER_WEIGHTS_FILE, ClassifierOptions,
    EncoderConfig, ModelError, ProblemType, SequenceClassifier, TRAINED_FILE, TextEncoder,
    TrainedFormat, write_atomically,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::data::example::Objective;
use crate::observe::tensorboard::remove_event_files;
use crate::run::adapter_settings::AdapterSettings;
use crate::run::checkpoints::Checkpoints;
use crate::run::file_names::{CHECKPOINTS, CONFIG, LOCK, LOG, RESULTS};
use crate::run::init_from::{import, start};
use crate::run::load::load;
use crate::run::saver::SaveOptions;
use crate::run::unfinished::{explain_not_a_run, run_of_checkpoint};
use crate::tasks::table::TableConfig;
use crate::training::learners::classification::TrainError;
use crate::training::normalization::of_earlier_builds;
use crate::training::options::TrainOptions;
use crate::training::snapshot::{Snapshot, changed};

/// What a run writes beside its checkpoints and curves.
const FILES: [&str; 7] = [
    CONFIG,
    RESULTS,
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    ADAPTER_PICKLE_FILE,
    TRAINED_FILE,
    LOG,
];
/// How often it is tried again where somebody holds it, and after how long.
const LOCK_TRIES: usize = 4;
const LOCK_PAUSE: Duration = Duration::from_millis(25);
/// What of a run's configuration may change when it goes on.
const MAY_CHANGE: [&str; 3] = ["checkpoints", "device", "final_scores"];
/// The field of the configuration that says how the folder is laid out.
const FORMAT_FIELD: &str = "format";
/// The layout that is written and read.
const FORMAT: i64 = 2;

/// All that a run is made from: with it and the same model folder and data, it can be made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The base model's folder.
    pub model: PathBuf,
    /// The task's name.
    pub task: String,
    /// The data's folder.
    pub data: PathBuf,
    /// The columns of a table, where the task is one.
    pub table: Option<TableConfig>,
    /// What trains.
    pub adapter: AdapterSettings,
    /// The most tokens of an example; longer ones are cut.
    pub max_length: usize,
    /// The device's name.
    pub device: String,
    /// How it trains.
    pub training: TrainOptions,
    /// When checkpoints are made.
    #[serde(default)]
    pub checkpoints: SaveOptions,
    /// Whether the head's output layer starts with new values though the base model has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh_head: bool,
    /// What the head puts out.
    pub objective: Objective,
}

impl RunConfig {
    /// The base model with this run's head and method, ready to train on an autodiff `device`, and
    /// the names of the tensors that its folder lacks. Its adapter is new, or the one that `init_from`
    /// names.
    ///
    /// # Errors
    /// When the folder is no model, or the adapter does not fit it.
    pub fn start(&self, device: &Device) -> Result<(LoadedClassifier, Vec<String>), TrainError> {
        let (parts, fresh) = self.base(device)?;
        let mut modules_to_save = vec!["classifier"];
        // BERT's pooler, where the base model comes without one.
        if fresh.iter().any(|name| name.contains(".pooler.")) {
            modules_to_save.push("pooler");
        }
        let seed = self.training.seed;
        let (settings, kept) = (&self.adapter, &modules_to_save);
        let model = start(parts.model, &parts.config, settings, kept, seed)?;
        let model = settings.keep_base(model)?;
        Ok((LoadedClassifier { model, ..parts }, fresh))
    }

    /// The base model with the values that were trained, without gradients: those of the run, or of the
    /// adapter, in `folder`.
    ///
    /// # Errors
    /// When the base model or the trained values cannot be read or do not fit.
    pub fn load(&self, folder: &Path, device: &Device) -> Result<LoadedClassifier, TrainError> {
        // What needs a gradient can only be told where there are some.
        let (parts, _) = self.base(&device.clone().autodiff())?;
        let model = load(parts.model, &parts.config, &self.adapter, folder)?;
        Ok(LoadedClassifier { model, ..parts })
    }

    /// As [`start`](Self::start), but with the head, too, of the adapter that `init_from` names.
    ///
    /// # Errors
    /// When none is named, it does not fit the model, or differs from the settings.
    pub fn import(&self, device: &Device) -> Result<LoadedClassifier, TrainError> {
        let (parts, _) = self.base(device)?;
        let model = import(parts.model, &parts.config, &self.adapter)?;
        Ok(LoadedClassifier { model, ..parts })
    }

    /// How what `parts` trains is written.
    ///
    /// # Errors
    /// When the model has adapters of different structures.
    pub fn format(&self, parts: &LoadedClassifier) -> Result<TrainedFormat, TrainError> {
        self.adapter
            .format(&parts.model, &parts.config, &self.model)
    }

    /// The base model with a head for the objective, and the names of the tensors that its folder lacks.
    pub(crate) fn base(
        &self,
        device: &Device,
    ) -> Result<(LoadedClassifier, Vec<String>), TrainError> {
        let config = task_config(EncoderConfig::from_folder(&self.model)?, &self.objective)?;
        let text = TextEncoder::from_folder(&self.model, &config, self.max_length)?;
        let options = ClassifierOptions {
            base_dtype: self.adapter.base_dtype_to_read(),
            seed: self.training.seed,
            fresh_head: self.fresh_head,
        };
        let (model, fresh) =
            SequenceClassifier::from_folder_with(options, &self.model, &config, device)?;
        let parts = LoadedClassifier {
            model,
            config,
            text,
        };
        Ok((parts, fresh))
    }
}

/// The configuration with a head for `objective`.
///
/// # Errors
/// When there are too many labels.
pub fn task_config(
    config: EncoderConfig,
    objective: &Objective,
) -> Result<EncoderConfig, ModelError> {
    match objective {
        Objective::Classification { labels } => {
            config.with_classifier(labels.clone(), ProblemType::SingleLabelClassification)
        }
        Objective::Regression => {
            config.with_classifier(vec!["LABEL_0".to_string()], ProblemType::Regression)
        }
    }
}

/// A model with what it takes to feed it.
pub struct LoadedClassifier {
    /// The model.
    pub model: SequenceClassifier,
    /// Its sizes and labels.
    pub config: EncoderConfig,
    /// From text to tokens.
    pub text: TextEncoder,
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct Run {
    folder: PathBuf,
    /// Held while it trains.
    _lock: Option<Arc<File>>,
}

impl Run {
    /// A new folder with the resolved configuration in it, to train in.
    ///
    /// # Errors
    /// When the folder exists and is not empty, unless `overwrite`; when a run is being trained in it;
    /// what the operating system says.
    pub fn create(
        folder: &Path,
        overwrite: bool,
        config: &impl Serialize,
    ) -> Result<Self, TrainError> {
        let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if occupied && !overwrite {
            return Err(TrainError::Report(format!(
                "{}: exists and is not empty; name another folder, or pass --overwrite",
                folder.display()
            )));
        }
        fs::create_dir_all(folder).map_err(|error| ModelError::write(folder, error))?;
        let run = Self::locked(folder)?;
        // The configuration first: without it, what is left of an older run is none.
        for old in FILES {
            let path = run.path(old);
            if path.exists() {
                fs::remove_file(&path).map_err(|error| ModelError::write(&path, error))?;
            }
        }
        run.checkpoints().clear()?;
        run.sweep()?;
        remove_event_files(folder)?;
        let text = toml::to_string_pretty(config)
            .map_err(|error| TrainError::Report(format!("{CONFIG}: {error}")))?;
        let text = format!("{FORMAT_FIELD} = {FORMAT}\n{text}");
        write_atomically(&run.path(CONFIG), text.as_bytes())?;
        Ok(run)
    }

    /// A run that is there, and its configuration, a [`RunConfig`] or what else `C` is; see
    /// [`StoredConfig`](crate::StoredConfig) where that is not known.
    ///
    /// # Errors
    /// When the folder has no readable `run.toml`, or one of another build.
    pub fn open<C: DeserializeOwned>(folder: &Path) -> Result<(Self, C), TrainError> {
        let path = folder.join(CONFIG);
        // A checkpoint has a copy of the configuration.
        if run_of_checkpoint(folder).is_some() {
            let (folder, what) = (folder.display(), explain_not_a_run(folder));
            return Err(TrainError::Report(format!(
                "{folder} is no run folder: {what}"
            )));
        }
        let text = fs::read_to_string(&path).map_err(|error| {
            let folder = folder.display();
            let message = match error.kind() {
                // The folder itself may be a file.
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    let what = explain_not_a_run(path.parent().unwrap_or(&path));
                    format!("{folder} is no run folder: {what}")
                }
                _ => format!("{folder} is no run folder: cannot read its {CONFIG}: {error}"),
            };
            TrainError::Report(message)
        })?;
        let config = read_config(&text)
            .map_err(|error| TrainError::Report(format!("{}: {error}", path.display())))?;
        let run = Self {
            folder: folder.to_path_buf(),
            _lock: None,
        };
        Ok((run, config))
    }

    /// The same run, to train in: until what this returns is dropped, nobody else can.
    ///
    /// # Errors
    /// When it is being trained.
    pub fn lock(self) -> Result<Self, TrainError> {
        Self::locked(&self.folder)
    }

    fn locked(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(LOCK);
        let at = |error| ModelError::write(&path, error);
        let options = OpenOptions::new().create(true).append(true).clone();
        let file = options.open(&path).map_err(at)?;
        let mut locked = file.try_lock();
        // Checking whether a run is being trained holds the lock for a moment; wait that long.
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
                return Err(TrainError::Report(format!(
                    "{}: another process is training this run; wait for it, or stop it",
                    folder.display()
                )));
            }
            // There are file systems without locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(at(error).into()),
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            _lock: Some(Arc::new(file)),
        })
    }

    /// Whether a folder is a run's, and not only an adapter's.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(CONFIG).exists()
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.path(CHECKPOINTS))
    }

    /// Puts the folder back to where its newest whole checkpoint was made, and returns what the run
    /// goes on from: nothing if there is none, and then from the beginning. The second is what the
    /// user should know, a line each.
    ///
    /// # Errors
    /// When a setting in `run.toml` has changed that may not; when the checkpoint is of another
    /// version; what the operating system says.
    pub fn rewind(
        &self,
        format: &TrainedFormat,
    ) -> Result<(Option<Snapshot>, Vec<String>), TrainError> {
        self.sweep()?;
        let (kept, damages) = self.checkpoints().newest()?;
        let mut notes: Vec<String> = damages.iter().map(ToString::to_string).collect();
        let Some(kept) = kept else {
            notes.push(match damages.is_empty() {
                true => "there is no checkpoint yet: the run begins anew".to_string(),
                false => "no checkpoint is whole: the run begins anew".to_string(),
            });
            self.cut_log(0)?;
            remove_event_files(&self.folder)?;
            return Ok((None, notes));
        };
        let table = |text: &str| {
            text.parse::<toml::Table>()
                .map_err(|error| TrainError::Report(format!("{CONFIG}: {error}")))
        };
        let was = table(&kept.config)?;
        let is = table(&self.config_text()?)?;
        if let Some(error) = changed(&was, &is, &MAY_CHANGE) {
            return Err(error.into());
        }
        let step = kept.snapshot.step;
        notes.push(match damages.is_empty() {
            true => format!("goes on after step {step}"),
            false => format!("falls back to the last whole checkpoint: goes on after step {step}"),
        });
        if self.cut_log(kept.log_bytes)? < kept.log_bytes {
            notes.push(format!("{LOG} has lost lines of before step {step}"));
        }
        if let Some(best) = &kept.snapshot.best {
            self.save_state(format, &best.values)?;
        }
        Ok((Some(kept.snapshot), notes))
    }

    /// Removes what a killed program left of files that it was writing.
    fn sweep(&self) -> Result<(), TrainError> {
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
    /// What the operating system says.
    pub fn config_text(&self) -> Result<String, TrainError> {
        let path = self.path(CONFIG);
        fs::read_to_string(&path).map_err(|error| {
            TrainError::Report(format!("{}: cannot read: {error}", path.display()))
        })
    }

    /// Writes the trained values, replacing older ones only when they are whole: as an adapter in PEFT's
    /// format where one is trained.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn save_state(&self, format: &TrainedFormat, values: &State) -> Result<(), TrainError> {
        Ok(format.write(&self.folder, values)?)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Reads a configuration, whose layout must be the one that is written today.
fn read_config<C: DeserializeOwned>(text: &str) -> Result<C, String> {
    let mut table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    if table.is_empty() {
        return Err("the file is empty: the run is damaged".to_string());
    }
    match table.get(FORMAT_FIELD).map(toml::Value::as_integer) {
        Some(Some(FORMAT)) => {}
        None => {
            return Err(
                "the run was made by an earlier build of mtlora, which kept adapters in another form; \
                 train it again, or merge it with that build and use the merged folder as the model"
                    .to_string(),
            );
        }
        Some(_) => {
            return Err(format!(
                "`{FORMAT_FIELD}` is not {FORMAT}: the run was made by another build of mtlora; use that one"
            ));
        }
    }
    // Without that line, and with every other where it was, for the messages.
    let is_format = |line: &&str| line.split('=').next().map(str::trim) == Some(FORMAT_FIELD);
    let first = text.lines().position(|line| is_format(&line));
    let rest: Vec<&str> = text
        .lines()
        .enumerate()
        .map(|(at, line)| if Some(at) == first { "" } else { line })
        .collect();
    let config = toml::from_str(&rest.join("\n")).map_err(|error| error.to_string())?;
    match table
        .get_mut("training")
        .and_then(toml::Value::as_table_mut)
    {
        Some(options) if !options.contains_key("loss_normalization") => {
            of_earlier_builds(options);
            table.remove(FORMAT_FIELD);
            table.try_into().map_err(|error| error.to_string())
        }
        _ => Ok(config),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::training::normalization::LossNormalization;

    #[test]
    fn what_a_killed_program_was_writing_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::create(folder.path(), false, &toml::Table::new()).unwrap();
        let put = |name: &str| fs::write(folder.path().join(name), "x").unwrap();
        put(".adapter_model.safetensors.41-0.tmp");
        put(".trained.safetensors.41-1.tmp");
        // Somebody else's.
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
    fn a_run_that_does_not_say_what_losses_are_divided_by_was_made_by_batches() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            training: TrainOptions,
        }
        let read = |text: &str| read_config::<Config>(&format!("format = 2\n[training]\n{text}"));
        let normalization = |text: &str| read(text).unwrap().training.loss_normalization;
        assert_eq!(normalization("epochs = 4"), LossNormalization::Batch);
        let step = normalization("loss_normalization = 'step'");
        assert_eq!(step, LossNormalization::Step);
        let error = read("epcohs = 4").unwrap_err();
        assert!(
            error.contains("line 3") && error.contains("epcohs"),
            "{error}"
        );
    }

    #[test]
    fn runs_of_other_builds_are_refused_with_the_way_out() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            rank: usize,
        }
        let read = |text: &str| read_config::<Config>(text);
        assert_eq!(read("format = 2\nrank = 4").unwrap().rank, 4);
        assert!(read("rank = 4").unwrap_err().contains("earlier build"));
        assert!(
            read("format = 3\nrank = 4")
                .unwrap_err()
                .contains("another build")
        );
        let text = read("format = 2\nrank = 4\nrnak = 5").unwrap_err();
        assert!(text.contains("line 3") && text.contains("rnak"), "{text}");
    }
}
