//! The names of the files in a run's folder.

/// The configuration.
pub(crate) const CONFIG: &str = "run.toml";
/// The metrics of each step and of each evaluation.
pub(crate) const LOG: &str = "metrics.jsonl";
/// The results.
pub(crate) const RESULTS: &str = "results.json";
/// The settings that the run was started with, in the form of a settings file.
pub(crate) const SETTINGS: &str = "settings.toml";
/// The model card.
pub(crate) const CARD: &str = "README.md";
/// The picture of the curves in the model card.
pub(crate) const CURVES: &str = "curves.svg";
/// The folder with the checkpoints.
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// The file that is locked while a process trains the run.
pub(crate) const LOCK: &str = ".lock";
