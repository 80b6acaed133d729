use std::error::Error;

use burn::module::Module;
use mtlora::core::BaseDtype;
use mtlora::models::{EncoderConfig, Gpt2Config};
use mtlora::train::TrainError;
use mtlora::train::bench::{
    Subject, Trains, causal_flops, classifier_flops, random_items, random_sequences,
};
use serde::Serialize;

use super::model::{AdapterArgs, Measured, ModelArgs};
use super::report::{self, Place, Work};
use crate::cli::settings::settings_file::LABEL_SMOOTHING;

/// Steps that are not timed: the first ones fill caches and find out what memory is needed.
const WARM_UP: usize = 2;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Sequences in a batch [default: 16; GPT-2: 4].
    #[arg(long)]
    batch: Option<usize>,
    /// Tokens of each sequence [default: 128; GPT-2: 256].
    #[arg(long)]
    seq: Option<usize>,
    /// Steps that are timed, after two that are not.
    #[arg(long, default_value_t = 5)]
    steps: usize,
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
        Measured::Encoder(config) => classifier(&args, &config, json),
        Measured::Causal(config) => causal(&args, &config, json),
    }
}

fn classifier(args: &Args, config: &EncoderConfig, json: bool) -> Result<(), Box<dyn Error>> {
    let size = args.size([16, 128], config.max_tokens())?;
    let place = args.model.place(args.adapter.base_dtype)?;
    let device = place.device.clone().autodiff();
    let model = args.model.classifier(config, &args.adapter, &device)?;
    let trains = Trains::of(&model);
    let items = random_items(config, size, args.model.seed);
    let options = args.model.options();
    let subject = Subject::classifier(model, config, &items, &options, &device);
    let flops = classifier_flops(config, &trains, &vec![size[1]; size[0]]);
    let step_s = timed(subject, size[0], args.steps)?;
    args.report(&place, size, &trains, step_s, flops, json)
}

fn causal(args: &Args, config: &Gpt2Config, json: bool) -> Result<(), Box<dyn Error>> {
    let size = args.size([4, 256], config.n_positions)?;
    let place = args.model.place(args.adapter.base_dtype)?;
    let device = place.device.clone().autodiff();
    let model = args.model.causal(config, &args.adapter, &device)?;
    let trains = Trains::of(&model);
    let sequences = random_sequences(config, size, args.model.seed);
    let options = args.model.options();
    let subject = Subject::causal(model, &sequences, LABEL_SMOOTHING, &options, &device);
    let [batch, seq] = size;
    let flops = causal_flops(config, &trains, &vec![seq; batch], batch * (seq - 1));
    let step_s = timed(subject, batch, args.steps)?;
    args.report(&place, size, &trains, step_s, flops, json)
}

impl Args {
    /// Sequences, and tokens of each.
    fn size(&self, usual: [usize; 2], most: usize) -> Result<[usize; 2], String> {
        let [batch, seq] = [
            self.batch.unwrap_or(usual[0]),
            self.seq.unwrap_or(usual[1].min(most)),
        ];
        // A causal model foretells nothing in a sequence of one token.
        match batch > 0 && (2..=most).contains(&seq) {
            true => Ok([batch, seq]),
            false => Err(format!(
                "--batch must be at least 1, and --seq from 2 to the model's {most} tokens"
            )),
        }
    }

    fn report(
        &self,
        place: &Place,
        [batch, seq]: [usize; 2],
        trains: &Trains,
        step_s: Vec<f64>,
        flops: f64,
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
        let work = Work::repeated(step_s, [batch, batch * seq], flops);
        report::print("step", &self.model, place, settings, &work, json)
    }
}

/// The seconds of `steps` steps on the first `batch` examples.
fn timed<M: Module>(
    mut subject: Subject<'_, M>,
    batch: usize,
    steps: usize,
) -> Result<Vec<f64>, TrainError> {
    let batch: Vec<usize> = (0..batch).collect();
    let mut step_s = Vec::with_capacity(steps);
    for number in 0..WARM_UP + steps {
        let (next, seconds) = subject.step(&batch)?;
        subject = next;
        if number >= WARM_UP {
            step_s.push(seconds);
        }
    }
    Ok(step_s)
}
