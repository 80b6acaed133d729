//! Tasks, data, metrics and the training loop for MTLoRA.

pub mod acceptability;
mod batches;
mod dashboard;
mod error;
mod evaluation;
mod example;
pub mod glue;
mod loss;
mod metrics;
mod optimizer;
mod pretrain;
mod rows;
mod run;
mod schedule;
mod table;
mod task;
mod trainer;

pub use batches::{BatchSize, by_length, shuffled};
pub use dashboard::Dashboard;
pub use error::DataError;
pub use evaluation::{Item, encode, evaluate, predict};
pub use example::{Example, Objective, Target};
pub use loss::loss;
pub use metrics::{MetricError, MetricName, Predictions, Scores, score};
pub use optimizer::{adamw, clip_gradient_norm};
pub use pretrain::{PretrainError, PretrainOptions, PretrainProgress, pretrain};
pub use run::{MethodName, Parts, Run, RunConfig, task_config};
pub use schedule::WarmupLinear;
pub use table::{TableConfig, TableTask};
pub use task::Task;
pub use trainer::{Method, Observer, StepReport, TrainError, TrainOptions, Trained, train};
