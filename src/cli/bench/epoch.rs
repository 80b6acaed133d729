use std::error::Error;
use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::Device;
use mtlora::core::BaseDtype;
use mtlora::models::{
    CausalConfig, CausalModelConfig, CausalText, ClassifierConfig, LossOn, ModelConfig, TextConfig,
    TextEncoder,
};
use mtlora::train::bench::{Subject, Trains, causal_flops, classifier_flops};
use mtlora::train::chat::{ChatTask, TooLongChat};
use mtlora::train::data_to_text::GenerationTask;
use mtlora::train::registry;
use mtlora::train::{
    BatchSize, CausalExample, Task, TaskData, TrainOptions, encode, encode_records, shuffled,
    task_config,
};
use serde::Serialize;

use super::device_work::DeviceWork;
use super::disturbance::Watch;
use super::model::{AdapterArgs, ModelArgs};
use super::report::{self, Place, Timed, Work};
use crate::cli::chat::examples::{self, Split};
use crate::cli::console::progress::Counter;
use crate::cli::settings::defaults::{self, Defaults, HelpDefaults, LABEL_SMOOTHING};
use crate::cli::settings::task;

#[derive(clap::Args)]
#[command(mut_args(defaults::add_to_help(help_defaults())))]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// The task (see `mtlora tasks`).
    #[arg(long)]
    task: String,
    /// The folder with the data of the task; of conversations, also a JSONL file.
    #[arg(long)]
    data: PathBuf,
    /// The tokenizer.json [default: the model folder's].
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Sequences in a batch.
    #[arg(long)]
    batch: Option<usize>,
    /// Tokens in a batch, instead of --batch.
    #[arg(long, conflicts_with = "batch")]
    batch_tokens: Option<usize>,
    /// Maximum number of tokens of an example; longer examples are cut.
    #[arg(long)]
    max_length: Option<usize>,
    /// Stop after this many steps [default: at the end of the epoch].
    #[arg(long)]
    max_steps: Option<usize>,
}

/// The defaults that the help shows, which are those of `mtlora train`.
fn help_defaults() -> HelpDefaults {
    let (labels, texts) = (Defaults::classification(), Defaults::data_to_text());
    let chats = Defaults::chat("llama");
    let both = |value: fn(&Defaults) -> usize| {
        let first = defaults::by_kind(value(&labels), "data-to-text", value(&texts));
        defaults::by_kind(first, "chat", value(&chats))
    };
    vec![
        ("batch", both(Defaults::batch_sequences)),
        ("max_length", both(|of| of.max_length)),
    ]
}

/// The settings and sizes of the measured steps, and the time that is expected for a whole epoch.
#[derive(Serialize)]
struct Settings<'a> {
    method: String,
    structure: &'static str,
    base_dtype: BaseDtype,
    task: &'a str,
    batch: BatchSize,
    max_length: usize,
    trainable_parameters: usize,
    examples: usize,
    tokens: usize,
    /// The number of tokens if each batch were padded to its longest example.
    padded_tokens: usize,
    epoch_examples: usize,
    epoch_s_projected: f64,
}

/// The train split as sequences of tokens.
struct Epoch {
    /// The number of tokens of each example.
    lengths: Vec<usize>,
    batches: Vec<Vec<usize>>,
    max_length: usize,
    size: BatchSize,
}

pub(super) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let is_chat = args.task == ChatTask::NAME;
    let texts = match is_chat {
        true => None,
        false => registry::open_generation(&args.task, None)?,
    };
    match (args.model.open()?, texts) {
        (ModelConfig::Causal(config), _) if is_chat => chat(&args, &config, json),
        (ModelConfig::Causal(config), Some(task)) => {
            data_to_text(&args, &config, task.as_ref(), json)
        }
        (ModelConfig::Classifier(config), None) if !is_chat => {
            let task = registry::open_classification(&args.task, None, &args.data)?;
            classifier(&args, &config, task.as_ref(), json)
        }
        (ModelConfig::Classifier(_), _) => Err(format!(
            "{} is a task of texts: it needs a causal model such as gpt2",
            args.task
        )
        .into()),
        (ModelConfig::Causal(_), None) => Err(format!(
            "{} asks for labels or numbers: it needs an encoder such as roberta-base",
            args.task
        )
        .into()),
    }
}

fn classifier(
    args: &Args,
    config: &ClassifierConfig,
    task: &dyn Task,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let config = task_config(config, task.objective())?;
    let defaults = Defaults::classification();
    let max_length = args.max_length.unwrap_or(defaults.max_length);
    let text = TextEncoder::from_file(&args.tokenizer()?, &config, max_length)?;
    let examples = task::read(task, &args.data, task.train_split())?;
    let items = encode(&text, &examples)?;
    let lengths = items.iter().map(|item| item.tokens.len()).collect();
    let epoch = args.epoch(lengths, defaults.training.batch, text.max_length())?;

    let place = args.model.place(args.adapter.base_dtype)?;
    let device = place.device.clone().autodiff();
    let adapter = &args.adapter;
    let model = args.model.classifier(&config, adapter, &device)?;
    let trains = Trains::of(&model);
    let options = args.model.options();
    let subject = Subject::classifier(model, &config, &items, &options, &device);
    let timed = epoch.timed(subject, &place.device)?;
    let flops = |batch: &[usize]| classifier_flops(&config, &trains, &epoch.lengths_of(batch));
    let work = epoch.work(timed, flops);
    args.report(&place, &epoch, &trains, &work, json)
}

fn data_to_text(
    args: &Args,
    config: &CausalConfig,
    task: &dyn GenerationTask,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let defaults = Defaults::data_to_text().on(config.model_type());
    let max_length = args.causal_max_length(config, &defaults);
    let text = CausalText::from_file(&args.tokenizer()?, config)?;
    let records = task::read_records(task, &args.data, task.train_split())?;
    let (sequences, _) = encode_records(&text, config.end_of_text(), &records, max_length)?;
    let learning = Learning {
        sequences: &sequences,
        defaults,
        label_smoothing: LABEL_SMOOTHING,
        max_length,
    };
    learning.measure(args, config, json)
}

/// Conversations as `mtlora train --task chat` learns them: rendered with the template of the model's folder, cut to the
/// maximum length.
fn chat(args: &Args, config: &CausalConfig, json: bool) -> Result<(), Box<dyn Error>> {
    let folder = args.model.folder().ok_or_else(|| {
        format!(
            "conversations are rendered with the template of a model's folder, and --model {} is only a name",
            args.model.name()
        )
    })?;
    let defaults = Defaults::chat(config.model_type());
    let max_length = args.causal_max_length(config, &defaults);
    let text = CausalText::from_file(&args.tokenizer()?, config)?;
    let split = Split::read(&args.data, ChatTask.train_split())?;
    let template = examples::template(&folder, &text, &[&split.examples])?;
    let encoder = examples::encoder(&text, template.as_ref(), config, LossOn::default());
    let encoded = split.encode(encoder, max_length, TooLongChat::Cut)?;
    split.note_cut(&encoded, max_length);
    let learning = Learning {
        sequences: &encoded.sequences,
        defaults,
        label_smoothing: 0.0,
        max_length,
    };
    learning.measure(args, config, json)
}

/// What a causal model learns, and how.
struct Learning<'a, S> {
    sequences: &'a [S],
    defaults: Defaults,
    label_smoothing: f64,
    max_length: usize,
}

impl<S: CausalExample> Learning<'_, S> {
    fn measure(self, args: &Args, config: &CausalConfig, json: bool) -> Result<(), Box<dyn Error>> {
        let sequences = self.sequences;
        let lengths = sequences.iter().map(|one| one.ids().len()).collect();
        let epoch = args.epoch(lengths, self.defaults.training.batch, self.max_length)?;
        let place = args.model.place(args.adapter.base_dtype)?;
        let device = place.device.clone().autodiff();
        let adapter = self.defaults.adapter;
        let model = args.model.causal(config, &args.adapter, adapter, &device)?;
        let trains = Trains::of(&model);
        let options = args.model.options();
        let subject = Subject::causal(model, sequences, self.label_smoothing, &options, &device);
        let timed = epoch.timed(subject, &place.device)?;
        let flops = |batch: &[usize]| {
            let learned = batch.iter().map(|index| sequences[*index].learned_count());
            causal_flops(config, &trains, &epoch.lengths_of(batch), learned.sum())
        };
        let work = epoch.work(timed, flops);
        args.report(&place, &epoch, &trains, &work, json)
    }
}

impl Args {
    fn causal_max_length(&self, config: &CausalConfig, defaults: &Defaults) -> usize {
        let wanted = self.max_length.unwrap_or(defaults.max_length);
        wanted.min(config.max_tokens())
    }

    fn tokenizer(&self) -> Result<PathBuf, &'static str> {
        let own = || Some(self.model.folder()?.join("tokenizer.json"));
        self.tokenizer
            .clone()
            .or_else(own)
            .ok_or("--tokenizer is needed: name the tokenizer.json of the model")
    }

    /// The batches of the first epoch, in the order of training, up to `--max-steps`.
    fn epoch(
        &self,
        lengths: Vec<usize>,
        default: BatchSize,
        max_length: usize,
    ) -> Result<Epoch, Box<dyn Error>> {
        let size = match (self.batch, self.batch_tokens) {
            (Some(sequences), _) => BatchSize::Sequences(sequences),
            (None, Some(tokens)) => BatchSize::Tokens(tokens),
            (None, None) => default,
        };
        let options = TrainOptions {
            batch: size,
            ..self.model.options()
        };
        options.validate()?;
        let mut batches = shuffled(&lengths, size, options.seed, 0);
        batches.truncate(self.max_steps.unwrap_or(usize::MAX));
        if batches.is_empty() {
            Err("there is nothing to train on: --max-steps must be at least 1".into())
        } else {
            Ok(Epoch {
                lengths,
                batches,
                max_length,
                size,
            })
        }
    }

    fn report(
        &self,
        place: &Place,
        epoch: &Epoch,
        trains: &Trains,
        work: &Work,
        json: bool,
    ) -> Result<(), Box<dyn Error>> {
        let batches = || epoch.batches.iter().map(|batch| epoch.lengths_of(batch));
        let padded = |lengths: Vec<usize>| {
            let longest = lengths.iter().max().copied().unwrap_or_default();
            lengths.len() * longest
        };
        let settings = Settings {
            method: self.adapter.method.to_string(),
            structure: self.adapter.structure.name(),
            base_dtype: self.adapter.base_dtype,
            task: &self.task,
            batch: epoch.size,
            max_length: epoch.max_length,
            trainable_parameters: trains.parameters(),
            examples: work.examples,
            tokens: work.tokens,
            padded_tokens: batches().map(padded).sum(),
            epoch_examples: epoch.lengths.len(),
            epoch_s_projected: work.seconds * epoch.lengths.len() as f64 / work.examples as f64,
        };
        report::print("epoch", &self.model, place, settings, work, json)
    }
}

impl Epoch {
    fn lengths_of(&self, batch: &[usize]) -> Vec<usize> {
        batch.iter().map(|index| self.lengths[*index]).collect()
    }

    /// What was measured.
    fn work(&self, timed: Timed, flops: impl Fn(&[usize]) -> f64) -> Work {
        let batches = || self.batches.iter().map(|batch| self.lengths_of(batch));
        Work {
            seconds: timed.step_s.iter().sum(),
            timed,
            examples: batches().map(|lengths| lengths.len()).sum(),
            tokens: batches().flatten().sum(),
            flops: self.batches.iter().map(|batch| flops(batch)).sum(),
        }
    }

    /// The time in seconds of a step on each batch, and what the steps ask of the device.
    fn timed<M: Module>(
        &self,
        mut subject: Subject<'_, M>,
        device: &Device,
    ) -> Result<Timed, Box<dyn Error>> {
        let watch = Watch::start();
        let mut counter = Counter::new("steps", self.batches.len());
        let mut step_s = Vec::with_capacity(self.batches.len());
        for (done, batch) in self.batches.iter().enumerate() {
            let (next, seconds) = subject.step(batch)?;
            subject = next;
            step_s.push(seconds);
            counter.show(done + 1);
        }
        let taken = watch.stop();
        let mut subject = Some(subject);
        let device = DeviceWork::of(device, self.batches.len(), || {
            for batch in &self.batches {
                if let Some(before) = subject.take() {
                    subject = Some(before.step(batch)?.0);
                }
            }
            Ok(())
        })?;
        subject.map_or(Ok(()), Subject::finish)?;
        Ok(Timed {
            step_s,
            taken,
            device,
        })
    }
}
