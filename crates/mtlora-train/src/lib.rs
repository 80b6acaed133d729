//! Fine-tuning of the models in [`mtlora_models`]: tasks, data, metrics, the training loop, and runs on disk.
//!
//! # Train a classifier with a task of your own
//!
//! ```no_run
//! use std::path::Path;
//!
//! use burn::tensor::Device;
//! use mtlora_core::{MtLoraConfig, State, Structure, Targets};
//! use mtlora_models::{ClassifierConfig, PeftAdapter, SequenceClassifier, TextEncoder};
//! use mtlora_train::{
//!     ClassificationData, DataError, Example, Method, Objective, Observer, Scores, StepReport, Target, Task, TaskData,
//!     FitError, TrainOptions, encode, task_config, train,
//! };
//!
//! /// Is a review favourable? A task needs a name, an objective and a way to read examples; the rest has defaults.
//! struct Reviews(Objective);
//!
//! impl TaskData for Reviews {
//!     type Item = Example;
//!
//!     fn name(&self) -> &str {
//!         "reviews"
//!     }
//!
//!     fn read(&self, _data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
//!         let rows = if split == self.train_split() {
//!             [("A fine film.", 1), ("Two hours lost.", 0)]
//!         } else {
//!             [("I would see it again.", 1), ("It never ends.", 0)]
//!         };
//!         let example = |(text, class): (&str, usize)| Example {
//!             text: text.to_string(),
//!             pair: None,
//!             target: Some(Target::Class(class)),
//!         };
//!         Ok(rows.map(example).to_vec())
//!     }
//! }
//!
//! impl Task for Reviews {
//!     fn objective(&self) -> &Objective {
//!         &self.0
//!     }
//! }
//!
//! /// Prints the scores of each evaluation.
//! struct Print;
//!
//! impl Observer for Print {
//!     fn step(&mut self, _: &StepReport) -> Result<(), FitError> {
//!         Ok(())
//!     }
//!
//!     fn evaluated(&mut self, step: usize, scores: &Scores, _: Option<&State>) -> Result<(), FitError> {
//!         println!("after step {step}: {scores}");
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let labels = vec!["negative".to_string(), "positive".to_string()];
//! let task = Reviews(Objective::Classification { labels });
//! let folder = Path::new("roberta-base");
//! let config = task_config(&ClassifierConfig::from_folder(folder)?, task.objective())?;
//! let device = Device::flex().autodiff();
//! let (model, _) = SequenceClassifier::from_folder(folder, &config, 0, &device)?;
//! let adapter = MtLoraConfig::new(Structure::Shim)
//!     .with_rank(8)
//!     .with_target_modules(Targets::names(["query", "value"]))
//!     .with_modules_to_save(vec!["classifier".to_string()]);
//! let model = Method::MtLora(adapter).prepare(model)?;
//!
//! let text = TextEncoder::from_folder(folder, &config, 128)?;
//! let data = Path::new("unused by this task");
//! let train_items = encode(&text, &task.read(data, task.train_split())?)?;
//! let dev_items = encode(&text, &task.read(data, task.dev_split())?)?;
//! let options = TrainOptions {
//!     learning_rate: 5e-4,
//!     epochs: 3,
//!     ..TrainOptions::default()
//! };
//! let trained = train(
//!     model,
//!     ClassificationData { config: &config, task: &task, items: &train_items, dev: &dev_items },
//!     &options,
//!     None,
//!     &device,
//!     &mut Print,
//! )?;
//! println!("best after step {}: {}", trained.best_step, trained.best);
//! PeftAdapter::of(&trained.model, &config, "roberta-base", false)?.write(Path::new("my-adapter"))?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to read next
//!
//! | to | read |
//! |---|---|
//! | define a task, or use one that is here | [`Task`], [`TaskData`], [`TableTask`], [`glue`], [`acceptability`], [`registry`] |
//! | train, with checkpoints and early stopping | [`train()`], [`TrainOptions`], [`Method`], [`Observer`], [`Snapshot`] |
//! | train something else in the same loop | [`Learner`], [`fit`], [`fit_with_hooks`] |
//! | train on several processes together | [`ProcessGroup`], [`fit_with`], [`serve`], [`on_threads`] |
//! | write texts from data records | [`data_to_text`], [`facts`], [`train_causal`] |
//! | train a chat model on conversations | [`chat`], [`train_chat`] |
//! | score and apply a model | [`evaluate`], [`predict`], [`Scores`], [`text_metrics`] |
//! | keep a run on disk, resume it, load what it trained | [`Run`], [`RunConfig`], [`Saver`], [`BaseSpec`] |
//! | apply several adapters of one model | [`load_classifiers`], [`load_generators`], [`predict_routed`] |
//! | pre-train a small model | [`pretrain()`], [`pretrain_causal`] |
//! | watch and compare runs | [`Dashboard`], [`EventWriter`], [`report`] |
//! | compare methods over seeds | [`comparison`] |
//! | measure speed | [`mod@bench`] |
//!
//! In the repository's book, `docs/rust/task.md` has a task and a loss of your own, `docs/reference/files.md` the files of a run,
//! and `docs/compare/statistics.md` what a comparison computes.

pub mod bench;
pub mod comparison;
mod data;
mod inference;
mod metrics;
mod observe;
mod pretrain;
pub mod report;
mod run;
mod tasks;
mod training;

// Tasks and their examples.
pub use data::error::DataError;
pub use data::example::{Example, Objective, Target};
pub use data::held_back::{check_fraction, hold_back};
pub use data::text_file::read_text_file;
pub use tasks::class_check::{ClassCount, class_counts, class_warnings};
pub use tasks::labels::{LabelError, align_to_head, is_unnamed, with_label_order};
pub use tasks::table::{TableConfig, TableTask, ordered_classes};
pub use tasks::task::{Task, TaskData, TextColumns};
pub use tasks::{acceptability, chat, data_to_text, facts, glue, registry};

// Training.
pub use data::fingerprint::Fingerprint;
pub use training::batches::{BatchSize, shuffled};
pub use training::error::FitError;
pub use training::fit::{Extras, Trained, fit, fit_with, fit_with_hooks};
pub use training::learner::{BatchLoss, EvaluationParts, Learner, Recompute};
pub use training::learners::causal::{
    CAUSAL_EVALUATION_TOKENS, CausalData, CausalExample, Encoded, causal_scores, chat_scores,
    encode_records, serve_causal, serve_chat, train_causal, train_causal_with,
    train_causal_with_hooks, train_chat,
};
pub use training::learners::classification::{
    ClassificationData, serve_classification, train, train_with, train_with_hooks,
};
pub use training::loss::loss_sum;
pub use training::method::Method;
pub use training::normalization::LossNormalization;
pub use training::observer::{Observer, Pause, StepReport, Wish};
pub use training::optimizer::adamw::{AdamSettings, adamw, lora_plus_adamw};
pub use training::optimizer::lora_plus::LoraPlus;
pub use training::optimizer::schedule::{LrSchedule, LrScheduler};
pub use training::optimizer::state::{OptimizerState, OptimizerStateError};
pub use training::options::{DECAY_RATIO, OptionError, TrainOptions};
pub use training::ranks::error::RanksError;
pub use training::ranks::group::{ProcessGroup, Ranks};
pub use training::ranks::serve::serve;
pub use training::ranks::threads::on_threads;
pub use training::snapshot::{Best, Fingerprints, ResumeError, Snapshot};

// Pre-training.
pub use pretrain::causal::{CausalPretrainOptions, pretrain_causal};
pub use pretrain::masked_lm::{PretrainError, PretrainOptions, PretrainProgress, pretrain};

// Metrics.
pub use metrics::labels::{MetricError, MetricName, Predictions, Scores, score};
pub use metrics::text as text_metrics;
pub use metrics::text_scores::{TextScores, score_texts};

// Applying a model.
pub use inference::evaluation::{EVALUATION_TOKENS, Item, encode, evaluate, predict};
pub use inference::generator::{PromptForm, WriteError, WriteOptions, Written};
pub use inference::inputs::{Input, InputColumns, Pairs, is_table, read_input_lines, read_inputs};
pub use inference::several::{
    NamedAdapter, RoutedColumns, RoutedRow, load_classifiers, load_generators, predict_routed,
    read_routed, write_routed,
};

// Runs on disk, and the models and adapters that they describe.
pub use run::checkpoints::contents::CheckpointContents;
pub use run::checkpoints::store::{CheckpointError, Checkpoints};
pub use run::config::settings::{
    ChatRun, ClassificationRun, DataSpec, GenerationRun, ResumeChanges, RunConfig, RunKind,
    TypedConfig,
};
pub use run::error::RunError;
pub use run::folder::{Rewound, Run};
pub use run::log::{LoggedEvaluation, LoggedStep, MetricsLog};
pub use run::model::adapter_settings::AdapterSettings;
pub use run::model::base::{BaseSpec, Loaded, LoadedFor, ModelSpec, Started, StartedFor};
pub use run::model::classifier::{ClassifierSpec, HeadSpec, LoadedClassifier, task_config};
pub use run::model::generator::{GeneratorSpec, LoadedGenerator};
pub use run::model::init_from::settings_of;
pub use run::model::init_from_error::InitFromError;
pub use run::model::kept_base::KeptBase;
pub use run::model::load::trained_parameters;
pub use run::model::method_name::MethodName;
pub use run::report_to::ReportTo;
pub use run::results::{MetricValues, ParameterCounts, RunResults, ScoredSplit};
pub use run::save_options::SaveOptions;
pub use run::saver::Saver;
pub use run::unfinished::{
    Unfinished, explain_not_a_run, is_imported, lacks_values, run_of_checkpoint,
};

// Watching a run.
pub use observe::dashboard::Dashboard;
pub use observe::tensorboard::EventWriter;
