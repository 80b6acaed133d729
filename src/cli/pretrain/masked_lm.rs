use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use mtlora::models::{
    MaskedLm, ModelFamilies, ModelSizes, TextConfig, TextEncoder, train_tokenizer, write_tokenizer,
};
use mtlora::train::registry;
use mtlora::train::{InputColumns, Pairs, read_inputs};
use mtlora::train::{PretrainOptions, PretrainProgress, pretrain};
use serde_json::json;

use crate::cli::console::output;
use crate::cli::model::device;
use crate::cli::pretrain::causal;
use crate::cli::settings::defaults::{self, HelpDefaults};
use crate::cli::settings::task;

/// The default ratio of the feed-forward layers' intermediate size to the size of the hidden states.
const FEED_FORWARD_FACTOR: usize = 4;

/// Flags of `mtlora pretrain`.
#[derive(clap::Args)]
#[command(mut_args(defaults::add_to_help(help_defaults())))]
pub(crate) struct Args {
    /// The architecture of the model.
    #[arg(long, value_enum, default_value_t = Kind::MaskedLm)]
    pub(crate) architecture: Kind,
    /// Text files with one example on each line, or tables (.csv, .tsv, .jsonl) with a column text.
    #[arg(long, num_args = 1.., required_unless_present = "task")]
    text: Vec<PathBuf>,
    /// Instead of --text: use the references of this data-to-text task's train split.
    #[arg(long, conflicts_with = "text", requires = "data")]
    task: Option<String>,
    /// The data folder of that task.
    #[arg(long, requires = "task")]
    data: Option<PathBuf>,
    /// The model's folder to write; must be new or empty.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
    /// For gpt2: the folder with a tokenizer.json to use instead of making one from the text.
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Maximum size of the vocabulary, which is made from the text.
    #[arg(long, default_value_t = 8000)]
    pub(crate) vocab_size: usize,
    /// Size of the hidden states.
    #[arg(long, default_value_t = 128)]
    pub(crate) hidden_size: usize,
    /// Number of transformer layers.
    #[arg(long, default_value_t = 4)]
    pub(crate) layers: usize,
    /// Number of attention heads.
    #[arg(long, default_value_t = 4)]
    pub(crate) heads: usize,
    /// For roberta: size of the feed-forward layers' intermediate states.
    #[arg(long)]
    intermediate_size: Option<usize>,
    /// Maximum number of tokens of an example; longer examples are cut.
    #[arg(long, default_value_t = 128)]
    pub(crate) max_length: usize,
    /// Number of optimizer steps.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) steps: usize,
    /// Sequences in a batch.
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub(crate) batch: usize,
    /// Batches in a step.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) gradient_accumulation: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 1e-3)]
    pub(crate) lr: f64,
    /// The fraction of all steps over which the learning rate rises.
    #[arg(long, default_value_t = 0.06)]
    pub(crate) warmup_ratio: f64,
    /// AdamW's weight decay.
    #[arg(long, default_value_t = 0.01)]
    pub(crate) weight_decay: f64,
    /// For roberta: the fraction of tokens to predict.
    #[arg(long, default_value_t = 0.15)]
    mask_probability: f64,
    /// Seed of the weights, the data's order, the masks and dropout.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// The device [default: the first].
    #[arg(long)]
    device: Option<String>,
}

/// The defaults that the help shows.
fn help_defaults() -> HelpDefaults {
    vec![(
        "intermediate_size",
        format!("{FEED_FORWARD_FACTOR} times the hidden states'"),
    )]
}

/// Parses a number that must not be zero.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_string()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// An encoder that predicts masked tokens.
    #[value(name = "roberta")]
    MaskedLm,
    /// A decoder that predicts each next token.
    #[value(name = "gpt2")]
    Causal,
}

impl Kind {
    /// The `model_type` of the new model.
    pub(crate) fn model_type(self) -> &'static str {
        match self {
            Self::MaskedLm => "roberta",
            Self::Causal => "gpt2",
        }
    }
}

/// The result of pre-training.
pub(crate) struct Made {
    pub(crate) parameters: usize,
    pub(crate) loss: f64,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    output::ensure_empty_dir(&args.out, args.overwrite)?;
    let lines = lines(&args)?;
    let device = device::open(&device::name_or_default(args.device.as_deref())?)?.autodiff();
    let start = Instant::now();
    let made = match args.architecture {
        Kind::MaskedLm if args.tokenizer.is_some() => {
            return Err("--tokenizer is for --architecture gpt2".into());
        }
        Kind::MaskedLm => masked(&args, &lines, &device)?,
        Kind::Causal if args.intermediate_size.is_some() => {
            return Err("--intermediate-size is for --architecture roberta".into());
        }
        Kind::Causal => causal::run(&args, &lines, &device)?,
    };
    say!("the model is in {}", args.out.display())?;
    if json {
        output::json(&json!({
            "steps": args.steps,
            "loss": made.loss,
            "total_parameters": made.parameters,
            "train_seconds": start.elapsed().as_secs_f64(),
            "peak_rss_mb": output::peak_rss_mb(),
        }))?;
    }
    Ok(())
}

/// Reads the lines of text to train on.
fn lines(args: &Args) -> Result<Vec<String>, Box<dyn Error>> {
    if let (Some(name), Some(data)) = (&args.task, &args.data) {
        let task = registry::open_generation(name, None)?.ok_or_else(|| {
            format!("--task is for data-to-text tasks, but {name} is not such a task")
        })?;
        let records = task::read_records(task.as_ref(), data, task.train_split())?;
        return Ok(records
            .into_iter()
            .flat_map(|record| record.references)
            .collect());
    }
    let mut lines = Vec::new();
    for path in &args.text {
        let columns = InputColumns {
            text: "text",
            pairs: Pairs::Never,
        };
        let texts = read_inputs(path, &columns)?
            .into_iter()
            .map(|input| input.text);
        lines.extend(texts.filter(|line| !line.trim().is_empty()));
    }
    Ok(lines)
}

/// Prints steps on standard error at intervals, and keeps the last loss.
pub(crate) struct Shown {
    printed: Option<Instant>,
    pub(crate) loss: f64,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self {
            printed: None,
            loss: f64::NAN,
        }
    }

    pub(crate) fn step(&mut self, progress: PretrainProgress) {
        self.loss = progress.loss;
        let due = self
            .printed
            .is_none_or(|at| at.elapsed() > Duration::from_secs(2));
        if due || progress.step == progress.steps {
            note!(
                "step {}/{} loss {:.4} {:.0} tokens/s",
                progress.step,
                progress.steps,
                progress.loss,
                progress.tokens_per_second
            );
            self.printed = Some(Instant::now());
        }
    }
}

fn masked(args: &Args, lines: &[String], device: &Device) -> Result<Made, Box<dyn Error>> {
    let options = PretrainOptions {
        steps: args.steps,
        batch: args.batch,
        gradient_accumulation: args.gradient_accumulation,
        lr: args.lr,
        warmup_ratio: args.warmup_ratio,
        weight_decay: args.weight_decay,
        mask_probability: args.mask_probability,
        seed: args.seed,
    };
    // A wrong option is refused before anything is written.
    options.validate()?;
    let tokenizer = train_tokenizer(lines.iter(), args.vocab_size)?;
    let sizes = ModelSizes {
        vocab_size: tokenizer.get_vocab_size(true),
        hidden_size: args.hidden_size,
        layers: args.layers,
        heads: args.heads,
        key_value_heads: None,
        head_width: None,
        intermediate_size: args.intermediate_size,
        max_tokens: args.max_length,
        end_of_text: None,
    };
    let config = ModelFamilies::builtin().new_masked_lm(args.architecture.model_type(), &sizes)?;
    output::make_folder(&args.out)?;
    write_tokenizer(&tokenizer, &args.out, args.max_length)?;
    let text = TextEncoder::new(
        args.out.join("tokenizer.json"),
        tokenizer,
        &config,
        args.max_length,
    )?;
    let model = MaskedLm::fresh(&config, args.seed, device)?;
    let parameters = model.num_params();
    note!(
        "{} lines, {} tokens in the vocabulary, {parameters} parameters",
        lines.len(),
        config.vocab_size()
    );
    let mut shown = Shown::new();
    let model = pretrain(
        model,
        &config,
        &text,
        lines,
        &options,
        device,
        &mut |progress| shown.step(progress),
    )?;
    model.valid().save(&args.out, &config)?;
    Ok(Made {
        parameters,
        loss: shown.loss,
    })
}
