use std::error::Error;
use std::time::Instant;

use burn::module::Module;
use mtlora::core::BaseDtype;
use mtlora::models::{CachedDecoder, GenerationConfig, ModelConfig, generate};
use mtlora::train::bench::{decoding_flops, random_prompts};
use mtlora::train::data_to_text::Scorer;
use serde::Serialize;

use super::device_work::DeviceWork;
use super::disturbance::Watch;
use super::model::ModelArgs;
use super::report::{self, Timed, Work};
use crate::cli::settings::defaults;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Number of prompts that are continued together.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Tokens of each prompt.
    #[arg(long, default_value_t = 32)]
    seq: usize,
    /// Number of beams; 1 means greedy decoding.
    #[arg(long, default_value_t = default_decoding().num_beams)]
    beams: usize,
    /// Exact number of tokens that are generated after each prompt.
    #[arg(long, default_value_t = default_decoding().max_new_tokens)]
    new_tokens: usize,
    /// Number of timed repetitions, after one that is not timed.
    #[arg(long, default_value_t = 5)]
    steps: usize,
}

#[derive(Serialize)]
struct Settings {
    batch: usize,
    seq: usize,
    beams: usize,
    new_tokens: usize,
}

/// The decoding settings of data-to-text runs on E2E.
fn default_decoding() -> GenerationConfig {
    defaults::decoding(Scorer::E2e)
}

pub(super) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let ModelConfig::Causal(config) = args.model.open()? else {
        return Err(
            "only a causal model generates texts: pass --model gpt2, or the folder of such a model"
                .into(),
        );
    };
    if args.steps == 0 {
        return Err("--steps must be at least 1".into());
    }
    let place = args.model.place(BaseDtype::F32)?;
    let model = args
        .model
        .plain_causal(BaseDtype::F32, &config, &place.device)?
        .valid();
    let prompts = random_prompts(&config, [args.batch, args.seq], args.model.seed);
    // No token ends a text, so that the amount of work is always the same.
    let decoding = GenerationConfig {
        num_beams: args.beams,
        max_new_tokens: args.new_tokens,
        min_new_tokens: args.new_tokens,
        ..default_decoding()
    };
    let mut decoder = CachedDecoder::new(&model, &config, &place.device);
    let mut step_s = Vec::with_capacity(args.steps);
    let mut watch = Watch::start();
    for number in 0..=args.steps {
        if number == 1 {
            watch = Watch::start();
        }
        let start = Instant::now();
        generate(&mut decoder, &prompts, &decoding, &mut |_| ())?;
        if number > 0 {
            step_s.push(start.elapsed().as_secs_f64());
        }
    }
    let taken = watch.stop();
    let settings = Settings {
        batch: args.batch,
        seq: args.seq,
        beams: args.beams,
        new_tokens: args.new_tokens,
    };
    let size = [args.batch, args.seq];
    let flops = decoding_flops(&config, size, args.beams, args.new_tokens);
    let device = DeviceWork::of(&place.device, 1, || {
        generate(&mut decoder, &prompts, &decoding, &mut |_| ())?;
        Ok(())
    })?;
    let timed = Timed {
        step_s,
        taken,
        device,
    };
    let work = Work::repeated(timed, [args.batch, args.batch * args.new_tokens], flops);
    report::print("generate", &args.model, &place, settings, &work, json)
}
