//! Tasks, data, metrics and the training loop for MTLoRA.

pub mod acceptability;
mod adapter_settings;
mod batches;
pub mod bench;
mod causal;
mod checkpoints;
mod class_check;
mod dashboard;
pub mod data_to_text;
mod error;
mod evaluation;
mod example;
pub mod facts;
mod fingerprint;
mod fit;
mod generation_run;
mod generator;
pub mod glue;
mod init_from;
mod inputs;
mod labels;
mod load;
mod loss;
mod metrics;
mod normalization;
mod optimizer;
mod optimizer_state;
mod options;
mod parquet_rows;
mod plan;
mod pretrain;
mod pretrain_causal;
mod pretrain_steps;
mod python;
mod report;
mod rows;
mod run;
mod saver;
mod schedule;
mod several;
mod snapshot;
mod step;
mod stored;
mod synthetic;
mod table;
mod table_file;
mod task;
mod tensorboard;
mod text_file;
pub mod text_metrics;
mod text_scores;
mod trainer;
mod unfinished;

pub use adapter_settings::{AdapterSettings, MethodName};
pub use batches::{BatchSize, by_length, shuffled};
pub use causal::{Encoded, causal_scores, encode_records, train_causal};
pub use checkpoints::{CheckpointError, Checkpoints, Kept};
pub use class_check::{ClassCount, class_counts, class_warnings};
pub use dashboard::Dashboard;
pub use error::DataError;
pub use evaluation::{Item, encode, evaluate, predict};
pub use example::{Example, Objective, Target};
pub use fingerprint::Fingerprint;
pub use fit::{Learner, Observer, Pause, StepReport, Trained, fit};
pub use generation_run::GenerationRunConfig;
pub use generator::{GeneratorParts, PromptForm, WriteError, WriteOptions, Written};
pub use init_from::{InitFromError, settings_of};
pub use inputs::{Input, InputColumns, Pairs, is_table, read_input_lines, read_inputs};
pub use labels::{
    LabelError, MatchedBy, MatchedLabels, for_head, given_labels, is_unnamed, match_labels,
    reordered,
};
pub use load::trained_parameters;
pub use loss::loss_sum;
pub use metrics::{MetricError, MetricName, Predictions, Scores, score};
pub use normalization::LossNormalization;
pub use optimizer::{adamw, clip_gradient_norm};
pub use optimizer_state::{OptimizerState, OptimizerStateError};
pub use options::TrainOptions;
pub use pretrain::{PretrainError, PretrainOptions, PretrainProgress, pretrain};
pub use pretrain_causal::{CausalPretrainOptions, pretrain_causal};
pub use report::{
    Curves, Evaluation, Report, ReportError, Results, RunReport, Section, Step, escape,
    inspection_html,
};
pub use run::{Parts, Run, RunConfig, task_config};
pub use saver::{SaveOptions, Saver};
pub use schedule::WarmupLinear;
pub use several::{
    NamedAdapter, RoutedColumns, RoutedRow, load_classifiers, load_generators, predict_routed,
    read_routed, write_routed,
};
pub use snapshot::{Best, ResumeError, Snapshot};
pub use step::BatchLoss;
pub use stored::StoredConfig;
pub use table::{TableConfig, TableTask};
pub use task::{Task, TextColumns};
pub use tensorboard::EventWriter;
pub use text_file::{decode_text, numbered_lines, read_text_file, read_text_from};
pub use text_scores::{TextScores, score_texts};
pub use trainer::{Method, TrainError, train};
pub use unfinished::Unfinished;
