//! The names of the files in a run's folder.

/// The configuration.
pub(crate) const CONFIG: &str = "run.toml";
/// The metrics of each step and each evaluation.
pub(crate) const LOG: &str = "metrics.jsonl";
/// The outcome.
pub(crate) const RESULTS: &str = "results.json";
/// The folder of the checkpoints.
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// Locked by the process that trains the run.
pub(crate) const LOCK: &str = ".lock";
