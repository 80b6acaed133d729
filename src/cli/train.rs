use std::error::Error;
use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora::core::{Init, Structure, device, devices, trainable_parameters};
use mtlora::train::{
    BatchSize, MethodName, Objective, Run, RunConfig, Scores, TableConfig, Task, TrainOptions,
    encode, train,
};
use serde::{Deserialize, Serialize};

use mtlora::train::acceptability::Acceptability;

use super::output;
use super::progress::Progress;
use super::task;

/// Where the first run goes.
const FIRST_RUN: &str = "runs/first";
/// What a tiny model needs to learn a whole grammar; the method's own settings are for large ones.
const FIRST_RUN_LR: f64 = 2e-3;
const FIRST_RUN_EPOCHS: usize = 5;
const FIRST_RUN_BATCH: usize = 32;
const FIRST_RUN_RANK: usize = 16;

/// Flags of `mtlora train`. A TOML file may set any of them under the flag's name with `_` for
/// `-`; flags win.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A TOML file with settings; flags win over it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The run's folder; must be new or empty [needed, but for the first run].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
    /// Plain lines in place of the dashboard.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    settings: Settings,
}

/// What a flag or the TOML file may set.
#[derive(clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The base model: a Hugging Face folder (RoBERTa or BERT).
    #[arg(long)]
    model: Option<PathBuf>,
    /// The task (see `mtlora tasks`).
    #[arg(long)]
    task: Option<String>,
    /// The folder with the data.
    #[arg(long)]
    data: Option<PathBuf>,
    /// For --task table: the column with the text [default: text].
    #[arg(long)]
    text_column: Option<String>,
    /// For --task table: the column with the second text of a pair [default: none].
    #[arg(long)]
    pair_column: Option<String>,
    /// For --task table: the column with the label or the number [default: label].
    #[arg(long)]
    label_column: Option<String>,
    /// For --task table: predict a number.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    regression: Option<bool>,
    /// What trains: mtlora, full, head [default: mtlora].
    #[arg(long)]
    method: Option<MethodName>,
    /// How T is made: lora, shim, icfm, ctcm, dtsm [default: shim].
    #[arg(long)]
    structure: Option<Structure>,
    /// Rank of the update [default: 8].
    #[arg(long)]
    rank: Option<usize>,
    /// Numerator of the update's scale, alpha / rank [default: 16].
    #[arg(long)]
    alpha: Option<f64>,
    /// Scale by alpha / sqrt(rank).
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    use_rslora: Option<bool>,
    /// Dropout on the adapter's input [default: 0].
    #[arg(long)]
    adapter_dropout: Option<f64>,
    /// How the adapter starts: kaiming, identity, zero [default: kaiming].
    #[arg(long)]
    init: Option<Init>,
    /// Which weights are adapted: endings of names with commas between, a regular expression, or
    /// all-linear [default: query,value].
    #[arg(long)]
    targets: Option<String>,
    /// The highest learning rate [default: 4e-4].
    #[arg(long)]
    lr: Option<f64>,
    /// Sequences in a batch [default: 32].
    #[arg(long)]
    batch: Option<usize>,
    /// Tokens in a batch, in place of --batch.
    #[arg(long, conflicts_with = "batch")]
    batch_tokens: Option<usize>,
    /// Batches to a step [default: 1].
    #[arg(long)]
    gradient_accumulation: Option<usize>,
    /// Passes over the training data [default: 3].
    #[arg(long)]
    epochs: Option<usize>,
    /// The part of all steps over which the learning rate climbs [default: 0.06].
    #[arg(long)]
    warmup_ratio: Option<f64>,
    /// AdamW's weight decay [default: 0.1].
    #[arg(long)]
    weight_decay: Option<f64>,
    /// The most that the gradients' norm may be [default: no bound].
    #[arg(long)]
    max_grad_norm: Option<f64>,
    /// Steps between evaluations [default: once an epoch].
    #[arg(long)]
    eval_steps: Option<usize>,
    /// Evaluations without a better score after which training stops [default: never].
    #[arg(long)]
    patience: Option<usize>,
    /// The most tokens of an example; longer ones are cut [default: 128].
    #[arg(long)]
    max_length: Option<usize>,
    /// Seed of the head, the adapter, the data's order and dropout [default: 0].
    #[arg(long)]
    seed: Option<u64>,
    /// The device (see `mtlora devices`) [default: the first].
    #[arg(long)]
    device: Option<String>,
}

impl Settings {
    /// These settings, and those of the file where a flag says nothing.
    fn over(self, path: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let Some(path) = path else {
            return Ok(self);
        };
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| at(&error))?;
        // Read once as settings, for an error with the line of an unknown or ill-typed one.
        let mut file =
            toml::Table::try_from(toml::from_str::<Settings>(&text).map_err(|e| at(&e))?)?;
        let flags = toml::Table::try_from(self)?;
        // The two sizes of a batch exclude each other.
        if flags.contains_key("batch") || flags.contains_key("batch_tokens") {
            file.remove("batch");
            file.remove("batch_tokens");
        }
        file.extend(flags);
        Ok(file.try_into()?)
    }

    /// Whether neither model nor task nor data is said.
    fn names_nothing(&self) -> bool {
        self.model.is_none() && self.task.is_none() && self.data.is_none()
    }

    /// Fills in the first run: the tiny model and the task that the repository has. What is set
    /// already stays.
    fn first_run(&mut self) -> Result<(), Box<dyn Error>> {
        let assets = Path::new("assets");
        let model = assets.join("tiny-roberta");
        if !model.is_dir() {
            return Err(
                "--model, --task, --data and --out are needed; without them the first run is \
                 made, whose model is in the repository: run from its folder"
                    .into(),
            );
        }
        self.model = Some(model);
        self.task = Some(Acceptability::NAME.to_string());
        self.data = Some(assets.join("acceptability"));
        self.targets.get_or_insert_with(|| "all-linear".to_string());
        self.rank.get_or_insert(FIRST_RUN_RANK);
        self.init.get_or_insert(Init::Identity);
        self.lr.get_or_insert(FIRST_RUN_LR);
        self.epochs.get_or_insert(FIRST_RUN_EPOCHS);
        if self.batch.is_none() && self.batch_tokens.is_none() {
            self.batch = Some(FIRST_RUN_BATCH);
        }
        Ok(())
    }

    fn resolve(self) -> Result<(RunConfig, Box<dyn Task>), Box<dyn Error>> {
        let needed = |name| format!("--{name} is needed (or `{name}` in the --config file)");
        let name = self.task.ok_or_else(|| needed("task"))?;
        let model = self.model.ok_or_else(|| needed("model"))?;
        // Absolute, so that the run can be read from any folder.
        let model = model.canonicalize().unwrap_or(model);
        let data = self.data.ok_or_else(|| needed("data"))?;
        let data = data.canonicalize().unwrap_or(data);
        let usual = TableConfig::default();
        let table = (name == task::TABLE).then(|| TableConfig {
            text: self.text_column.unwrap_or(usual.text),
            pair: self.pair_column,
            label: self.label_column.unwrap_or(usual.label),
            regression: self.regression.unwrap_or(usual.regression),
            ..TableConfig::default()
        });
        let task = task::find(&name, table.clone(), &data)?;
        let device = match self.device {
            Some(name) => name,
            None => match devices().into_iter().next() {
                Some(first) => first.name,
                None => return Err("this build has no backend; build with --features flex".into()),
            },
        };
        let usual = TrainOptions::default();
        let config = RunConfig {
            model,
            task: task.name().to_string(),
            data,
            table: table.map(|table| with_labels(table, task.objective())),
            method: self.method.unwrap_or(MethodName::MtLora),
            structure: self.structure.unwrap_or(Structure::Shim),
            rank: self.rank.unwrap_or(8),
            alpha: self.alpha.unwrap_or(16.0),
            use_rslora: self.use_rslora.unwrap_or(false),
            adapter_dropout: self.adapter_dropout.unwrap_or(0.0),
            init: self.init.unwrap_or(Init::Kaiming),
            targets: self.targets.unwrap_or_else(|| "query,value".to_string()),
            max_length: self.max_length.unwrap_or(128),
            device,
            training: TrainOptions {
                batch: match (self.batch, self.batch_tokens) {
                    (Some(sequences), _) => BatchSize::Sequences(sequences),
                    (None, Some(tokens)) => BatchSize::Tokens(tokens),
                    (None, None) => usual.batch,
                },
                gradient_accumulation: self
                    .gradient_accumulation
                    .unwrap_or(usual.gradient_accumulation),
                learning_rate: self.lr.unwrap_or(usual.learning_rate),
                epochs: self.epochs.unwrap_or(usual.epochs),
                warmup_ratio: self.warmup_ratio.unwrap_or(usual.warmup_ratio),
                weight_decay: self.weight_decay.unwrap_or(usual.weight_decay),
                max_grad_norm: self.max_grad_norm,
                eval_steps: self.eval_steps,
                patience: self.patience,
                seed: self.seed.unwrap_or(usual.seed),
            },
            objective: task.objective().clone(),
        };
        Ok((config, task))
    }
}

/// The table with its classes written down, so that `eval` needs no train split to know them.
fn with_labels(table: TableConfig, objective: &Objective) -> TableConfig {
    let labels = match objective {
        Objective::Classification { labels } => Some(labels.clone()),
        Objective::Regression => None,
    };
    TableConfig { labels, ..table }
}

#[derive(Serialize)]
struct Report<'a> {
    task: &'a str,
    metrics: &'a Scores,
    metrics_before: &'a Scores,
    metrics_last: &'a Scores,
    best_step: usize,
    steps: usize,
    trainable_parameters: usize,
    total_parameters: usize,
    train_seconds: f64,
    tokens_per_second: f64,
    peak_rss_mb: Option<f64>,
}

pub(crate) fn run(mut args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let mut settings = args.settings.over(args.config.as_deref())?;
    if settings.names_nothing() {
        settings.first_run()?;
        // It may be made again and again.
        args.overwrite |= args.out.is_none();
        args.out.get_or_insert_with(|| PathBuf::from(FIRST_RUN));
    }
    let out = args.out.ok_or("--out is needed: the run's folder")?;
    let (config, task) = settings.resolve()?;
    config.training.validate()?;
    let device = device(&config.device)?.autodiff();
    let train_examples = task::read(task.as_ref(), &config.data, task.train_split())?;
    let dev_examples = task::read(task.as_ref(), &config.data, task.dev_split())?;
    let (parts, fresh) = config.prepare(&device)?;
    let items = encode(&parts.text, &train_examples)?;
    let dev = encode(&parts.text, &dev_examples)?;
    let run = Run::create(&out, args.overwrite, &config)?;

    let trainable = trainable_parameters(&parts.model);
    let total = parts.model.num_params();
    eprintln!(
        "{}: {} train and {} dev examples; {trainable} of {total} parameters train ({:.2} %), on {}",
        task.name(),
        items.len(),
        dev.len(),
        100.0 * trainable as f64 / total as f64,
        config.device,
    );
    if !fresh.is_empty() {
        eprintln!(
            "the model's folder lacks, and starts anew: {}",
            fresh.join(", ")
        );
    }
    let mut progress = Progress::new(&run, task.metric_names(), args.plain);
    let trained = train(
        parts.model,
        &parts.config,
        task.as_ref(),
        [&items, &dev],
        &config.training,
        &device,
        &mut progress,
    )?;
    // Gives the terminal back.
    drop(progress);

    let seconds = trained.time.as_secs_f64();
    let report = Report {
        task: task.name(),
        metrics: &trained.best,
        metrics_before: &trained.before,
        metrics_last: &trained.last,
        best_step: trained.best_step,
        steps: trained.steps,
        trainable_parameters: trainable,
        total_parameters: total,
        train_seconds: seconds,
        tokens_per_second: trained.tokens as f64 / seconds.max(f64::MIN_POSITIVE),
        peak_rss_mb: output::peak_rss_mb(),
    };
    println!("dev before: {}", output::describe(&trained.before));
    println!(
        "dev after:  {} (step {})",
        output::describe(&trained.best),
        trained.best_step
    );
    println!("the run is in {}", out.display());
    if json {
        output::json(&report)?;
    }
    Ok(())
}
