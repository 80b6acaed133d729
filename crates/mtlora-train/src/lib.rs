//! Tasks, data, metrics and the training loop for MTLoRA.

pub mod bench;
mod data;
mod inference;
mod metrics;
mod observe;
mod pretrain;
mod report;
mod run;
mod tasks;
mod training;

pub use data::error::DataError;
pub use data::example::{Example, Objective, Target};
pub use data::fingerprint::Fingerprint;
pub use data::text_file::read_text_file;
pub use inference::evaluation::{Item, encode, evaluate, predict};
pub use inference::generator::{PromptForm, WriteError, WriteOptions, Written};
pub use inference::inputs::{Input, InputColumns, Pairs, is_table, read_input_lines, read_inputs};
pub use inference::several::{
    NamedAdapter, RoutedColumns, RoutedRow, load_classifiers, load_generators, predict_routed,
    read_routed, write_routed,
};
pub use metrics::labels::{MetricError, MetricName, Predictions, Scores, score};
pub use metrics::text as text_metrics;
pub use metrics::text_scores::{TextScores, score_texts};
pub use observe::dashboard::Dashboard;
pub use observe::tensorboard::EventWriter;
pub use pretrain::causal::{CausalPretrainOptions, pretrain_causal};
pub use pretrain::masked_lm::{PretrainError, PretrainOptions, PretrainProgress, pretrain};
pub use report::{Curves, Report, ReportError, RunReport, Section, escape, inspection_html};
pub use run::checkpoints::contents::CheckpointContents;
pub use run::checkpoints::store::{CheckpointError, Checkpoints};
pub use run::config::settings::{
    ClassificationRun, DataSpec, GenerationRun, ResumeChanges, RunConfig, RunKind, TypedConfig,
};
pub use run::folder::Run;
pub use run::log::{LoggedEvaluation, LoggedStep, MetricsLog};
pub use run::model::adapter_settings::{AdapterSettings, MethodName};
pub use run::model::base::{BaseSpec, Loaded, ModelSpec, Started};
pub use run::model::classifier::{ClassifierSpec, HeadSpec, LoadedClassifier, task_config};
pub use run::model::generator::{GeneratorSpec, LoadedGenerator};
pub use run::model::init_from::{InitFromError, settings_of};
pub use run::model::load::trained_parameters;
pub use run::results::{MetricValues, ParameterCounts, RunResults};
pub use run::save_options::SaveOptions;
pub use run::saver::Saver;
pub use run::unfinished::{Unfinished, explain_not_a_run, is_imported, run_of_checkpoint};
pub use tasks::class_check::{ClassCount, class_counts, class_warnings};
pub use tasks::labels::{LabelError, align_to_head, is_unnamed, with_label_order};
pub use tasks::table::{TableConfig, TableTask};
pub use tasks::task::{Task, TextColumns};
pub use tasks::{acceptability, data_to_text, facts, glue};
pub use training::batches::{BatchSize, by_length, shuffled};
pub use training::fit::{Learner, Observer, Pause, StepReport, Trained, fit, fit_with_hooks};
pub use training::learners::causal::{Encoded, causal_scores, encode_records, train_causal};
pub use training::learners::classification::{Method, TrainError, train};
pub use training::loss::loss_sum;
pub use training::normalization::LossNormalization;
pub use training::optimizer::{adamw, clip_gradient_norm};
pub use training::optimizer_state::{OptimizerState, OptimizerStateError};
pub use training::options::TrainOptions;
pub use training::schedule::WarmupLinear;
pub use training::snapshot::{Best, ResumeError, Snapshot};
pub use training::step::BatchLoss;
