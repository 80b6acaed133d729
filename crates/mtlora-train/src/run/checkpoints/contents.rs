//! The contents of a checkpoint, as tensors and as TOML.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::TensorData;
use mtlora_core::State;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::metrics::labels::{MetricName, Scores};
use crate::training::normalization::of_earlier_builds;
use crate::training::optimizer::state::OptimizerState;
use crate::training::options::TrainOptions;
use crate::training::snapshot::{Best, Fingerprints, Snapshot};

/// The format number of `state.toml` and of the training steps that resume from it.
pub(super) const FORMAT: u32 = 3;
/// The previous format, which can be read, too. Its options lack `loss_normalization`.
pub(super) const EARLIER_FORMAT: u32 = 2;
/// The prefixes of the paths in `state.safetensors`.
const MODEL: &str = "model/";
const BEST: &str = "best/";
const OPTIMIZER: &str = "optimizer/";
/// Only runs whose adapter method has a state use this prefix. Builds without such methods refuse it.
const HOOKS: &str = "hooks/";

/// The contents of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointContents {
    /// The state of the training.
    pub snapshot: Snapshot,
    /// The run's configuration as the text of `run.toml`.
    pub config: String,
    /// The length of the metrics log in bytes.
    pub log_bytes: u64,
}

/// A tensor with its name and shape.
type NamedTensor<'a> = (String, Vec<usize>, Cow<'a, [f32]>);

/// Why the files of a checkpoint cannot be read although their checksums are right.
pub(super) enum ContentsError {
    /// The format number is unknown.
    Format(u32),
    /// `state.toml` is invalid.
    State(String),
    /// `state.safetensors` is invalid.
    Tensors(String),
}

impl CheckpointContents {
    /// The text of `state.toml`.
    pub(super) fn state_text(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(&Written::of(self))
    }

    /// The tensors of `state.safetensors`.
    ///
    /// # Errors
    /// If a tensor is not in 32-bit floats; the error names it.
    pub(super) fn tensors(&self) -> Result<Vec<NamedTensor<'_>>, String> {
        let snapshot = &self.snapshot;
        let best = snapshot.best.iter();
        // Right after an evaluation that was the best, the best state is the current one and is not stored twice.
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

    /// Reads a checkpoint from the texts of `state.toml` and `run.toml` and the bytes of `state.safetensors`.
    ///
    /// # Errors
    /// If a file is invalid, or the format is unknown.
    pub(super) fn read(state: &str, config: String, tensors: &[u8]) -> Result<Self, ContentsError> {
        let unclear = |error: toml::de::Error| ContentsError::State(error.to_string());
        let mut table: toml::Table = state.parse().map_err(unclear)?;
        let format = table.get("format").and_then(toml::Value::as_integer);
        match format.and_then(|format| u32::try_from(format).ok()) {
            Some(FORMAT) => {}
            Some(EARLIER_FORMAT) => {
                let options = table.get_mut("options");
                if let Some(options) = options.and_then(toml::Value::as_table_mut) {
                    of_earlier_builds(options);
                }
            }
            Some(found) => return Err(ContentsError::Format(found)),
            None => {
                return Err(ContentsError::State("it has no format number".to_string()));
            }
        }
        let written: Written = table.try_into().map_err(unclear)?;
        written
            .contents(config, tensors)
            .map_err(ContentsError::Tensors)
    }
}

/// The contents of `state.toml`. Scores are lists, because a table would lose their order. The random state is a
/// hexadecimal string, because TOML's integers are signed 64-bit numbers.
#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    /// The version of the program.
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

fn score_list(scores: &Scores) -> Vec<(MetricName, f64)> {
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
    fn of(contents: &CheckpointContents) -> Self {
        let snapshot = &contents.snapshot;
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_string(),
            step: snapshot.step,
            tokens: snapshot.tokens,
            seconds: snapshot.seconds,
            waited: snapshot.evals_since_best,
            random: format!("{:016x}", snapshot.random),
            log_bytes: contents.log_bytes,
            data: snapshot.fingerprints.data.clone(),
            base: snapshot.fingerprints.base.clone(),
            before: score_list(&snapshot.before),
            last: score_list(&snapshot.last),
            best: snapshot.best.as_ref().map(|best| WrittenBest {
                step: best.step,
                scores: score_list(&best.scores),
            }),
            options: snapshot.options.clone(),
            optimizer: snapshot.optimizer.counters.clone(),
        }
    }

    fn contents(self, config: String, tensors: &[u8]) -> Result<CheckpointContents, String> {
        let (mut model, mut best) = (State::new(), State::new());
        let (mut moments, mut hooks) = (State::new(), State::new());
        let file = SafeTensors::deserialize(tensors).map_err(|error| error.to_string())?;
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(format!("`{name}` is {:?}, not F32", view.dtype()));
            }
            let states = [
                (MODEL, &mut model),
                (BEST, &mut best),
                (OPTIMIZER, &mut moments),
                (HOOKS, &mut hooks),
            ];
            let place = states
                .into_iter()
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
            values: if written.step == self.step {
                model.clone()
            } else {
                best
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
            fingerprints: Fingerprints {
                data: self.data,
                base: self.base,
            },
        };
        Ok(CheckpointContents {
            snapshot,
            config,
            log_bytes: self.log_bytes,
        })
    }
}
