use std::error::Error;
use std::path::PathBuf;

use burn::module::Module;
use mtlora::models::TextEncoder;
use mtlora::train::chat::ChatTask;
use mtlora::train::{
    ModelSpec, TaskData, TypedConfig, evaluate, glue, registry, trained_parameters,
};
use serde_json::json;

use crate::cli::console::output;
use crate::cli::eval::chat;
use crate::cli::eval::generation::{self, Wanted};
use crate::cli::hub;
use crate::cli::model::adapted;
use crate::cli::model::device;
use crate::cli::model::finished::CheckpointArgs;
use crate::cli::model::head::{Head, HeadOf};
use crate::cli::model::known_classes;
use crate::cli::model::plain;
use crate::cli::settings::defaults::{self, Defaults, HelpDefaults};
use crate::cli::settings::flags::Settings;
use crate::cli::settings::task;
use crate::cli::text::encoding;
use crate::cli::text::held_back::{self, HELD_BACK, Splits};

const ONLY_DATA_TO_TEXT: &str = "--meteor-jar and --texts are for runs of data-to-text tasks";

#[derive(clap::Args)]
#[command(mut_args(defaults::add_to_help(help_defaults())))]
pub(crate) struct Args {
    /// The run to score.
    #[arg(long, conflicts_with = "adapter", required_unless_present = "model")]
    run: Option<PathBuf>,
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// A model to score without a run (labels and numbers only), or the base model of --adapter, or that of --run if it is
    /// no longer where the run found it: a folder, or a name on the Hub.
    #[arg(long)]
    model: Option<PathBuf>,
    /// An adapter for that model: of a run, or LoRA saved by PEFT.
    #[arg(long, value_name = "DIR", requires = "model")]
    adapter: Option<PathBuf>,
    /// The task [default: the run's].
    #[arg(long)]
    task: Option<String>,
    /// The folder with the data [default: the run's; for GLUE's tasks the Hub's].
    #[arg(long)]
    data: Option<PathBuf>,
    /// The split, or held-back for the examples that a run with --validation-fraction held back [default: the task's dev
    /// split, or held-back where such a run has none].
    #[arg(long)]
    split: Option<String>,
    /// For --model and --task table: the column with the text.
    #[arg(long, requires = "model", conflicts_with = "run")]
    text_column: Option<String>,
    /// For --model and --task table: the column with the second text of a pair.
    #[arg(long, requires = "model", conflicts_with = "run")]
    pair_column: Option<String>,
    /// For --model and --task table: the column with the label or the number.
    #[arg(long, requires = "model", conflicts_with = "run")]
    label_column: Option<String>,
    /// For --model and --task table: the labels are numbers to predict.
    #[arg(long, requires = "model", conflicts_with = "run")]
    regression: bool,
    /// For --adapter and --task pairs: the column with the prompt.
    #[arg(long, requires = "adapter", conflicts_with = "run")]
    prompt_column: Option<String>,
    /// For --adapter and --task pairs: the column with the text to write.
    #[arg(long, requires = "adapter", conflicts_with = "run")]
    completion_column: Option<String>,
    /// For --model: the classes in the order of the outputs of its head, separated by commas [default: they are
    /// matched by name].
    #[arg(
        long,
        value_delimiter = ',',
        requires = "model",
        conflicts_with = "run"
    )]
    labels: Option<Vec<String>>,
    /// Maximum number of tokens of an example. A data-to-text run keeps its own.
    #[arg(long)]
    max_length: Option<usize>,
    /// The device [default: the run's, or the first].
    #[arg(long)]
    device: Option<String>,
    /// For data-to-text: the jar of METEOR 1.5, which is used instead of the two stages that are built in.
    #[arg(long, value_name = "FILE")]
    meteor_jar: Option<PathBuf>,
    /// For data-to-text: write the texts into this file, one on each line.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
}

/// The defaults that the help shows.
fn help_defaults() -> HelpDefaults {
    let mut all = defaults::of_settings();
    let columns = [
        "text_column",
        "pair_column",
        "label_column",
        "prompt_column",
        "completion_column",
    ];
    all.retain(|(name, _)| columns.contains(name));
    let length = defaults::by_kind(
        format!(
            "the run's, or {} (or what the model's tokenizer is for, if that is less)",
            Defaults::classification().max_length
        ),
        "data-to-text",
        Defaults::data_to_text().max_length,
    );
    all.push(("max_length", length));
    all
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    if args.run.is_none() && args.task.is_none() {
        return Err("--model needs --task, which says what the model is scored on".into());
    }
    let settings = Settings {
        model: args.model.clone(),
        task: args.task.clone(),
        data: args.data.clone(),
        max_length: args.max_length,
        labels: args.labels.clone(),
        text_column: args.text_column.clone(),
        pair_column: args.pair_column.clone(),
        label_column: args.label_column.clone(),
        regression: args.regression.then_some(true),
        prompt_column: args.prompt_column.clone(),
        completion_column: args.completion_column.clone(),
        device: args.device.clone(),
        ..Settings::default()
    };
    let table = settings.table();
    // The folder with the trained values, and its configuration.
    let trained = match (&args.run, &args.adapter) {
        (Some(run), _) => {
            args.checkpoint.check(run)?;
            let config = adapted::open_run(run, args.model.as_deref())?;
            adapted::check_head(run, &config)?;
            Some((run.clone(), config.typed()))
        }
        (None, Some(adapter)) => {
            let adapter = hub::adapter(adapter)?;
            let config = adapted::config_for_task(&adapter, settings)?;
            Some((adapter, config))
        }
        (None, None) => None,
    };
    let run = match trained {
        Some((folder, TypedConfig::Generation(config))) => {
            if args.run.is_some() && args.max_length.is_some() {
                return Err(
                    "--max-length: a data-to-text run keeps the length that it was trained with"
                        .into(),
                );
            }
            let wanted = Wanted {
                task: args.task,
                data: args.data,
                split: args.split,
                device: args.device,
                meteor_jar: args.meteor_jar,
                texts: args.texts,
            };
            return generation::run(&folder, &config, wanted, json);
        }
        Some((folder, TypedConfig::Chat(config))) => {
            if args.meteor_jar.is_some() || args.texts.is_some() {
                return Err(ONLY_DATA_TO_TEXT.into());
            }
            if args
                .task
                .as_deref()
                .is_some_and(|task| task != ChatTask::NAME)
            {
                return Err(format!(
                    "the run is of the task {}: leave out --task",
                    ChatTask::NAME
                )
                .into());
            }
            let wanted = chat::Wanted {
                data: args.data,
                split: args.split,
                max_length: args.max_length,
                device: args.device,
            };
            return chat::run(&folder, &config, wanted, json);
        }
        Some((folder, TypedConfig::Classification(config))) => Some((folder, config)),
        None => None,
    };
    if args.meteor_jar.is_some() || args.texts.is_some() {
        return Err(ONLY_DATA_TO_TEXT.into());
    }
    let stored = run.as_ref().map(|(_, config)| config);
    let name = args
        .task
        .or_else(|| stored.map(|config| config.data.task.clone()))
        .ok_or("--task is needed")?;
    if registry::find(&name)?.is_chat() {
        return Err(format!("{name}: score a run with --run, or an adapter with --adapter").into());
    }
    if registry::open_generation(&name, None)?.is_some() {
        return Err(format!(
            "{name} is a data-to-text task: score a run with --run, an adapter with --adapter, or the texts that \
             `mtlora generate` wrote with `mtlora score`"
        )
        .into());
    }
    // Another task, and other data, have other examples than those that were held back.
    let fraction = stored
        .filter(|config| config.data.task == name && held_back::are_its_data(&args.data, config))
        .and_then(|config| config.data.validation_fraction);
    let data = match (args.data, stored, glue::task(&name)) {
        (Some(data), _, _) => data,
        (None, Some(config), _) => {
            // What was held back is in the file of the train split.
            let split = args.split.as_deref().map(|split| match split {
                HELD_BACK => "train",
                other => other,
            });
            hub::run_data(&config.data.folder, &name, split)?
        }
        (None, None, Ok(task)) => {
            let split = args.split.as_deref().unwrap_or(task.dev_split());
            hub::glue_data(&task, &[split])?
        }
        (None, None, Err(_)) => return Err("--data is needed".into()),
    };
    let task = match stored {
        Some(config) => task::for_run(&name, config, &data)?,
        None => match (
            registry::open_classification(&name, Some(table.clone()), &data),
            &args.model,
        ) {
            (Err(error), Some(model)) if held_back::is_absent(&error) => {
                let model = (model.as_path(), args.labels.as_deref());
                known_classes::of_model(table, &data, model, error)?
            }
            (task, _) => task?,
        },
    };
    let wanted = args.device.as_deref();
    let wanted = wanted.or_else(|| stored.map(|config| config.device.as_str()));
    let device_name = device::name_or_default(wanted)?;
    let device = device::open(&device_name)?;
    let (task, parts, trainable) = match (run, args.model) {
        (Some((folder, config)), _) => {
            let trainable = trained_parameters(&folder)?;
            let mut parts = config.model().load(&folder, &device)?;
            if let Some(length) = args.max_length {
                parts.text = TextEncoder::from_folder(&config.base.model, &parts.config, length)?;
            }
            (task, parts, trainable)
        }
        (None, Some(given)) => {
            let folder = plain::find(&given)?;
            let head = Head::find(HeadOf::Model, &folder)?;
            let task = head.fit(task, args.labels.as_deref())?;
            let parts = plain::load(&folder, task.objective(), args.max_length, &device)?;
            (task, parts, 0)
        }
        (None, None) => return Err("--run or --model is needed".into()),
    };
    let splits = Splits {
        train: task.train_split(),
        dev: task.dev_split(),
        fraction,
    };
    let (split, examples) = splits.choose(
        args.split.as_deref(),
        |split| task::read(task.as_ref(), &data, split),
        |examples, fraction| held_back::by_class(examples, fraction, |example| example.target),
    )?;
    let items = encoding::encoded(&parts.text, &examples, encoding::of_split(&data, &split))?;
    let scores = evaluate(&parts.model, &parts.config, &items, task.as_ref(), &device)?;
    say!("{name} {split}: {}", output::describe(&scores))?;
    if json {
        output::json(&json!({
            "task": name,
            "split": split,
            "metrics": scores,
            "examples": items.len(),
            "trainable_parameters": trainable,
            "total_parameters": parts.model.num_params(),
        }))?;
    }
    Ok(())
}
