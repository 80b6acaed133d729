//! Compares methods that were each trained with several seeds: what their scores are, and what can be concluded.

mod analysis;
mod csv;
mod latex;
pub(crate) mod markdown;
pub(crate) mod statistics;

use serde::{Deserialize, Serialize};

use crate::metrics::labels::MetricName;

pub use analysis::{Analysis, Conclusion, Difference, Reach, Spread, Summary};

/// What tables call the mean over all tasks.
pub(crate) const ALL_TASKS: &str = "all tasks";
/// Decimals of scores in tables.
const DECIMALS: usize = 2;
/// Decimals of scores that are small numbers.
const SMALL_DECIMALS: usize = 4;

/// A comparison of methods ("arms") on tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// A line of text about it.
    pub about: Option<String>,
    /// The seeds of the runs. Runs of two arms with the same seed are a pair.
    pub seeds: Vec<u64>,
    /// The names of the arms.
    pub arms: Vec<String>,
    /// The index of the arm that the others are compared with.
    pub baseline: usize,
    /// The scores on each task.
    pub tasks: Vec<TaskScores>,
    /// Published results, which are shown beside those of the runs.
    pub published: Vec<Published>,
}

/// The scores of all arms on a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TaskScores {
    /// The name of the task.
    pub name: String,
    /// The name of the metric.
    pub metric: String,
    /// The split that was scored.
    pub split: String,
    /// Whether more of the metric is better.
    pub higher_is_better: bool,
    /// What scores were multiplied by, such as 100 for percent.
    pub scale: f64,
    /// The arms in their order.
    pub arms: Vec<ArmScores>,
}

/// The scores of an arm on a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ArmScores {
    /// The score of each seed; `None` if the run diverged or is not complete, or its score is NaN.
    pub scores: Vec<Option<f64>>,
    /// The number of runs that diverged.
    pub diverged: usize,
    /// The number of complete runs whose score is NaN, such as a correlation with predictions that are all equal.
    pub nan: usize,
    /// The settings that were chosen, such as `lr=1e-3`.
    pub chosen: Option<String>,
    /// The settings that were tried, in the order of the grid; empty if nothing was tuned.
    pub tried: Vec<TriedSettings>,
    /// What the runs needed, if one is complete.
    pub costs: Option<Costs>,
}

/// A point of an arm's grid.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TriedSettings {
    /// The settings, such as `lr=1e-3`.
    pub settings: String,
    /// The metric by which settings are chosen, which may be another one than that of the scores; empty while no run is complete.
    pub metric: String,
    /// The score of each tuning seed on the examples that choose the settings, multiplied by 100 where it is a share; `None` if the
    /// run diverged or is not complete.
    pub scores: Vec<Option<f64>>,
}

impl TriedSettings {
    /// The mean of the scores, by which settings are chosen; `None` if one is missing.
    pub fn mean(&self) -> Option<f64> {
        let scores: Option<Vec<f64>> = self.scores.iter().copied().collect();
        let scores = scores.filter(|scores| !scores.is_empty())?;
        Some(scores.iter().sum::<f64>() / scores.len() as f64)
    }
}

/// What the runs of an arm needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Costs {
    /// The number of trained parameters.
    pub trainable_parameters: usize,
    /// The number of all parameters.
    pub total_parameters: usize,
    /// The mean time of the steps of a run in seconds, unless it is left out. It depends on the machine and on what else it
    /// did.
    pub train_seconds: Option<f64>,
    /// The largest peak memory of a run in MiB, if the system reports it and it is not left out.
    pub peak_rss_mb: Option<f64>,
}

impl TaskScores {
    /// How many decimals of a score tables show: two of percentages, and four where scores are small numbers, such as losses.
    pub(crate) fn decimals(&self) -> usize {
        let scores = self.arms.iter().flat_map(|arm| &arm.scores).flatten();
        let is_small = self.scale == 1.0 && scores.into_iter().all(|score| score.abs() < 10.0);
        if is_small { SMALL_DECIMALS } else { DECIMALS }
    }

    /// As [`decimals`](Self::decimals), of the scores by which settings were chosen.
    pub(crate) fn decimals_of_tried(&self, tried: &TriedSettings) -> usize {
        if tried.metric == self.metric {
            return self.decimals();
        }
        match tried.metric.parse::<MetricName>() {
            Ok(metric) if metric.is_error() => SMALL_DECIMALS,
            _ => DECIMALS,
        }
    }
}

/// Published results of a method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The name of the method.
    pub name: String,
    /// Where the results were published.
    pub source: String,
    /// The scores by task, as they were published.
    pub scores: toml::Table,
}

/// `1 seed`, `5 seeds`
pub(crate) fn seed_count(seeds: usize) -> String {
    format!("{seeds} {}", if seeds == 1 { "seed" } else { "seeds" })
}

impl ArmScores {
    /// What became of the runs without a score, such as `1 of 5 diverged, 1 of 5 NaN` or `3 of 5 runs`, where `count` of
    /// `seeds` have one; `None` if all have.
    pub(crate) fn without_score(&self, count: usize, seeds: usize) -> Option<String> {
        let kinds = [(self.diverged, "diverged"), (self.nan, "NaN")];
        let found = kinds.iter().filter(|(number, _)| *number > 0);
        let mut parts: Vec<String> = found
            .map(|(number, kind)| format!("{number} of {seeds} {kind}"))
            .collect();
        let ended = count + self.diverged + self.nan;
        if ended < seeds {
            parts.push(format!("{ended} of {seeds} runs"));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

impl Published {
    /// The result for a task, as it was published: a number, or a text such as `63.4 ± 1.2`.
    pub fn score(&self, task: &str) -> Option<String> {
        match self.scores.get(task)? {
            toml::Value::String(text) => Some(text.clone()),
            value => Some(value.to_string()),
        }
    }
}

impl Comparison {
    /// The statistics of the scores.
    pub fn analysis(&self) -> Analysis {
        analysis::analyse(self)
    }

    /// As [`TaskScores::decimals`], of the mean over all tasks.
    pub(crate) fn decimals(&self) -> usize {
        let of_tasks = self.tasks.iter().map(TaskScores::decimals);
        of_tasks.min().unwrap_or(DECIMALS)
    }

    /// What the mean over all tasks is a mean of: the metric, or that of each task if they differ.
    pub(crate) fn of_all_tasks(&self) -> String {
        let mut metrics = self.tasks.iter().map(|task| task.metric.as_str());
        let first = metrics.next().unwrap_or_default();
        if metrics.all(|metric| metric == first) {
            return first.to_string();
        }
        let tasks = self.tasks.iter();
        let named: Vec<String> = tasks
            .map(|task| format!("{}: {}", task.name, task.metric))
            .collect();
        named.join(", ")
    }

    /// The comparison as a Markdown text. `costs` adds times and memory, which differ each time.
    pub fn to_markdown(&self, costs: bool) -> String {
        markdown::write(self, &self.analysis(), costs)
    }

    /// The scores as LaTeX, for the package `booktabs`.
    pub fn to_latex(&self) -> String {
        latex::write(self, &self.analysis())
    }

    /// One line for each task and arm, and for each arm's mean over all tasks, as CSV. `costs` adds times and memory, which differ each time.
    ///
    /// # Errors
    /// Never: it is written into memory.
    pub fn to_csv(&self, costs: bool) -> std::io::Result<String> {
        csv::write(self, &self.analysis(), costs)
    }
}
