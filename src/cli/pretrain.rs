use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::module::Module;
use mtlora::core::{device, devices};
use mtlora::models::{
    Architecture, EncoderConfig, EncoderSizes, MaskedLm, TextEncoder, train_tokenizer,
    write_tokenizer,
};
use mtlora::train::{PretrainOptions, pretrain};
use serde_json::json;

use super::output;

/// Flags of `mtlora pretrain`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Text files, one example a line.
    #[arg(long, required = true, num_args = 1..)]
    text: Vec<PathBuf>,
    /// The model's folder to write; must be new or empty.
    #[arg(long)]
    out: PathBuf,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
    /// The most tokens in the vocabulary, which is made from the text.
    #[arg(long, default_value_t = 8000)]
    vocab_size: usize,
    /// Width of the hidden states.
    #[arg(long, default_value_t = 128)]
    hidden_size: usize,
    /// Transformer layers.
    #[arg(long, default_value_t = 4)]
    layers: usize,
    /// Attention heads.
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Width between the two feed-forward maps.
    #[arg(long, default_value_t = 512)]
    intermediate_size: usize,
    /// The most tokens of an example; longer ones are cut.
    #[arg(long, default_value_t = 128)]
    max_length: usize,
    /// Optimizer steps.
    #[arg(long, default_value_t = 10_000)]
    steps: usize,
    /// Sequences in a batch.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// The part of all steps over which the learning rate climbs.
    #[arg(long, default_value_t = 0.06)]
    warmup_ratio: f64,
    /// AdamW's weight decay.
    #[arg(long, default_value_t = 0.01)]
    weight_decay: f64,
    /// The part of the tokens to be guessed.
    #[arg(long, default_value_t = 0.15)]
    mask_probability: f64,
    /// Seed of the weights, the order, the masks and dropout.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The device [default: the first].
    #[arg(long)]
    device: Option<String>,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    output::vacant(&args.out, args.overwrite)?;
    let mut lines = Vec::new();
    for path in &args.text {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let text = text.lines().filter(|line| !line.trim().is_empty());
        lines.extend(text.map(str::to_string));
    }
    let device = match &args.device {
        Some(name) => device(name)?,
        None => {
            devices()
                .into_iter()
                .next()
                .ok_or("this build has no backend")?
                .device
        }
    }
    .autodiff();

    let tokenizer = train_tokenizer(lines.iter(), args.vocab_size)?;
    let sizes = EncoderSizes {
        vocab_size: tokenizer.get_vocab_size(true),
        hidden_size: args.hidden_size,
        num_hidden_layers: args.layers,
        num_attention_heads: args.heads,
        intermediate_size: args.intermediate_size,
        max_tokens: args.max_length,
    };
    let config = EncoderConfig::new(Architecture::Roberta, sizes)?.for_masked_lm();
    std::fs::create_dir_all(&args.out)
        .map_err(|error| format!("{}: {error}", args.out.display()))?;
    write_tokenizer(&tokenizer, &args.out, args.max_length)?;
    let text = TextEncoder::new(
        args.out.join("tokenizer.json"),
        tokenizer,
        &config,
        args.max_length,
    )?;
    let model = MaskedLm::fresh(&config, args.seed, &device)?;
    let parameters = model.num_params();
    eprintln!(
        "{} lines, {} tokens in the vocabulary, {parameters} parameters",
        lines.len(),
        config.vocab_size
    );
    let options = PretrainOptions {
        steps: args.steps,
        batch: args.batch,
        lr: args.lr,
        warmup_ratio: args.warmup_ratio,
        weight_decay: args.weight_decay,
        mask_probability: args.mask_probability,
        seed: args.seed,
    };
    let start = Instant::now();
    let (mut printed, mut loss) = (None::<Instant>, f64::NAN);
    let model = pretrain(
        model,
        &config,
        &text,
        &lines,
        &options,
        &device,
        &mut |progress| {
            loss = progress.loss;
            let due = printed.is_none_or(|at| at.elapsed() > Duration::from_secs(2));
            if due || progress.step == progress.steps {
                eprintln!(
                    "step {}/{} loss {:.4} {:.0} tokens/s",
                    progress.step, progress.steps, progress.loss, progress.tokens_per_second
                );
                printed = Some(Instant::now());
            }
        },
    )?;
    model.valid().save(&args.out, &config)?;
    println!("the model is in {}", args.out.display());
    if json {
        output::json(&json!({
            "steps": args.steps,
            "loss": loss,
            "total_parameters": parameters,
            "train_seconds": start.elapsed().as_secs_f64(),
            "peak_rss_mb": output::peak_rss_mb(),
        }))?;
    }
    Ok(())
}
