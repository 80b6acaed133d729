use std::error::Error;

use burn::module::Module;
use burn::tensor::Device;
use mtlora::core::BaseDtype;
use mtlora::models::{CausalConfig, ClassifierConfig, ModelConfig, TextConfig};
use mtlora::train::TrainOptions;
use mtlora::train::bench::{
    Subject, Trains, causal_flops, classifier_flops, random_items, random_sequences,
};
use serde::Serialize;

use super::device_work::DeviceWork;
use super::disturbance::Watch;
use super::model::{AdapterArgs, ModelArgs};
use super::report::{self, Place, Timed, Work};
use crate::cli::settings::defaults::{self, Defaults, HelpDefaults, LABEL_SMOOTHING};

/// The size of a batch of sequences of the same length.
#[derive(Clone, Copy)]
struct BatchShape {
    /// The number of sequences.
    batch: usize,
    /// The number of tokens in each sequence.
    seq: usize,
}

/// The default batch for an encoder.
const ENCODER: BatchShape = BatchShape {
    batch: 16,
    seq: 128,
};
/// The largest batch in tokens. The activations of a larger one would not fit into any memory.
const MOST_TOKENS: usize = 1 << 24;

/// The default batch for a causal model.
const CAUSAL: BatchShape = BatchShape { batch: 4, seq: 256 };

#[derive(clap::Args)]
#[command(mut_args(defaults::add_to_help(help_defaults())))]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Sequences in a batch.
    #[arg(long)]
    batch: Option<usize>,
    /// Tokens of each sequence.
    #[arg(long)]
    seq: Option<usize>,
    /// Compute each layer again in the backward pass (causal models).
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Number of timed steps.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Number of steps before the timed ones, which fill caches and allocate memory. With 0 and --steps 1, a single step
    /// shows the peak memory of a large model.
    #[arg(long, default_value_t = 2)]
    warm_up: usize,
}

/// The defaults that the help shows.
fn help_defaults() -> HelpDefaults {
    let both =
        |value: fn(BatchShape) -> usize| defaults::by_kind(value(ENCODER), "causal", value(CAUSAL));
    vec![
        ("batch", both(|shape| shape.batch)),
        ("seq", both(|shape| shape.seq)),
    ]
}

#[derive(Serialize)]
struct Settings {
    method: String,
    structure: &'static str,
    base_dtype: BaseDtype,
    batch: usize,
    seq: usize,
    trainable_parameters: usize,
}

pub(super) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    if args.steps == 0 {
        return Err("--steps must be at least 1".into());
    }
    match args.model.open()? {
        ModelConfig::Classifier(config) => classifier(&args, &config, json),
        ModelConfig::Causal(config) => causal(&args, &config, json),
    }
}

fn classifier(args: &Args, config: &ClassifierConfig, json: bool) -> Result<(), Box<dyn Error>> {
    let size = args.size(ENCODER, config.max_tokens())?;
    if args.gradient_checkpointing {
        return Err(
            "--gradient-checkpointing is for models that generate texts: leave it out".into(),
        );
    }
    let place = args.model.place(args.adapter.base_dtype)?;
    let device = place.device.clone().autodiff();
    let model = args.model.classifier(config, &args.adapter, &device)?;
    let trains = Trains::of(&model);
    let items = random_items(config, [size.batch, size.seq], args.model.seed);
    let options = args.model.options();
    let subject = Subject::classifier(model, config, &items, &options, &device);
    let flops = classifier_flops(config, &trains, &vec![size.seq; size.batch]);
    let timed = timed(subject, size.batch, args.counts(), &place.device)?;
    let work = Work::repeated(timed, [size.batch, size.batch * size.seq], flops);
    args.report(&place, size, &trains, &work, json)
}

fn causal(args: &Args, config: &CausalConfig, json: bool) -> Result<(), Box<dyn Error>> {
    let size = args.size(CAUSAL, config.max_tokens())?;
    let place = args.model.place(args.adapter.base_dtype)?;
    let device = place.device.clone().autodiff();
    let defaults = Defaults::data_to_text().on(config.model_type());
    let model = args
        .model
        .causal(config, &args.adapter, defaults.adapter, &device)?;
    let trains = Trains::of(&model);
    let sequences = random_sequences(config, [size.batch, size.seq], args.model.seed);
    let options = TrainOptions {
        gradient_checkpointing: args.gradient_checkpointing,
        ..args.model.options()
    };
    let subject = Subject::causal(model, &sequences, LABEL_SMOOTHING, &options, &device);
    let BatchShape { batch, seq } = size;
    let flops = causal_flops(config, &trains, &vec![seq; batch], batch * (seq - 1));
    let timed = timed(subject, batch, args.counts(), &place.device)?;
    let work = Work::repeated(timed, [batch, batch * seq], flops);
    args.report(&place, size, &trains, &work, json)
}

/// How many steps are made.
#[derive(Clone, Copy)]
struct Counts {
    warm_up: usize,
    timed: usize,
}

impl Args {
    fn counts(&self) -> Counts {
        Counts {
            warm_up: self.warm_up,
            timed: self.steps,
        }
    }

    /// The size of a batch for a model with at most `most` tokens in a sequence.
    fn size(&self, default: BatchShape, most: usize) -> Result<BatchShape, String> {
        let batch = self.batch.unwrap_or(default.batch);
        let seq = self.seq.unwrap_or(default.seq.min(most));
        // A causal model predicts nothing in a sequence of one token.
        let tokens = batch.checked_mul(seq);
        if batch > 0 && (2..=most).contains(&seq) && tokens.is_some_and(|one| one <= MOST_TOKENS) {
            Ok(BatchShape { batch, seq })
        } else {
            Err(format!(
                "--batch must be at least 1, --seq from 2 to the model's {most} tokens, and both together at most {MOST_TOKENS} tokens"
            ))
        }
    }

    fn report(
        &self,
        place: &Place,
        BatchShape { batch, seq }: BatchShape,
        trains: &Trains,
        work: &Work,
        json: bool,
    ) -> Result<(), Box<dyn Error>> {
        let settings = Settings {
            method: self.adapter.method.to_string(),
            structure: self.adapter.structure.name(),
            base_dtype: self.adapter.base_dtype,
            batch,
            seq,
            trainable_parameters: trains.parameters(),
        };
        report::print("step", &self.model, place, settings, work, json)
    }
}

/// The time in seconds of each timed step on the first `batch` examples, and what they ask of the device.
fn timed<M: Module>(
    mut subject: Subject<'_, M>,
    batch: usize,
    counts: Counts,
    device: &Device,
) -> Result<Timed, Box<dyn Error>> {
    let batch: Vec<usize> = (0..batch).collect();
    let mut step_s = Vec::new();
    let mut watch = Watch::start();
    for number in 0..counts.warm_up.saturating_add(counts.timed) {
        if number == counts.warm_up {
            watch = Watch::start();
        }
        let (next, seconds) = subject.step(&batch)?;
        subject = next;
        if number >= counts.warm_up {
            step_s.push(seconds);
        }
    }
    let taken = watch.stop();
    let mut subject = Some(subject);
    let device = DeviceWork::of(device, 1, || {
        if let Some(before) = subject.take() {
            subject = Some(before.step(&batch)?.0);
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
