//! Measures a training step of GPT-2 small (random weights, 4 sequences of 256 tokens, rank 4 on the fused query, key
//! and value and on c_fc, dropout 0.1) with the chunked loss and with all logits at once, in turn. Prints the
//! seconds, and the most bytes that a step holds beyond what was held before it.
//!
//! ```text
//! cargo bench --bench causal_step
//! ```

#[path = "../crates/mtlora-core/tests/common/allocations.rs"]
mod allocations;

use std::error::Error;

use allocations::process_peak_of;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use mtlora::core::{MtLoraConfig, Structure, Targets, devices};
use mtlora::models::{CausalBatch, CausalLm, ModelConfig, ModelFamilies, fused_projections};
use mtlora::train::bench::{Subject, random_sequences};
use mtlora::train::{BatchLoss, Method, TrainOptions};

const BATCH: usize = 4;
const LENGTH: usize = 256;
const ROUNDS: usize = 5;
const SMOOTHING: f64 = 0.1;

/// The sum of the batch's losses from Burn's own operations on all logits at once.
fn whole(model: &CausalLm, batch: &CausalBatch) -> Tensor<1> {
    let hidden = model.hidden(&batch.packed);
    let rows = hidden.select(0, batch.places.clone());
    let embedding = model.model().output_map();
    let log_p = log_softmax(rows.matmul(embedding.transpose()), 1);
    let targets = batch.targets.clone().unsqueeze_dim(1);
    let nll = log_p.clone().gather(1, targets).sum().neg();
    let even = log_p.mean_dim(1).sum().neg();
    nll.mul_scalar(1.0 - SMOOTHING) + even.mul_scalar(SMOOTHING)
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test` runs benches too, to see that they build.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let named = devices().remove(0);
    let device = named.device.autodiff();
    let Some(ModelConfig::Causal(config)) = ModelFamilies::builtin().published("gpt2")? else {
        return Err("GPT-2 is a causal model".into());
    };
    let adapter = MtLoraConfig::new(Structure::Lora)
        .with_rank(4)
        .with_alpha(32.0)
        .with_dropout(0.1)
        .with_target_modules(Targets::names(["c_attn", "c_fc"]))
        .with_fused_projections(fused_projections("qkv").into_iter().collect());
    let model = CausalLm::fresh(&config, 0, &device)?;
    let model = Method::MtLora(adapter).prepare(model)?;
    let sequences = random_sequences(&config, [BATCH, LENGTH], 0);
    let options = TrainOptions::default();

    let divisor = |which: &[usize]| {
        let targets = which.iter().map(|index| sequences[*index].targets().len());
        targets.sum::<usize>() as f64
    };
    let loss = |model: &CausalLm, which: &[usize]| {
        let chosen = which.iter().map(|index| &sequences[*index]);
        let chosen = chosen.map(|one| (one.ids.as_slice(), one.targets()));
        let batch = CausalBatch::new(chosen, &device)?;
        Ok(BatchLoss::new(
            whole(model, &batch),
            batch.packed.offsets.tokens(),
        ))
    };
    let chunked = Subject::causal(model.clone(), &sequences, SMOOTHING, &options, &device);
    let whole = Subject::new(model, divisor, loss, &options, &device);
    let mut subjects = [("chunked loss", chunked), ("whole logits", whole)]
        .map(|(name, subject)| (name, Some(subject), Vec::new(), 0usize));
    let batch: Vec<usize> = (0..BATCH).collect();
    for round in 0..=ROUNDS {
        for (_, subject, seconds, bytes) in &mut subjects {
            let Some(stepping) = subject.take() else {
                continue;
            };
            let (stepped, peak) = process_peak_of(|| stepping.step(&batch));
            let (next, took) = stepped?;
            *subject = Some(next);
            // The first round is not counted.
            if round > 0 {
                seconds.push(took);
                *bytes = peak.max(*bytes);
            }
        }
    }
    println!(
        "GPT-2 small, {BATCH} x {LENGTH} tokens, on {}, median of {ROUNDS}:",
        named.name
    );
    for (name, _, seconds, bytes) in &mut subjects {
        seconds.sort_by(f64::total_cmp);
        println!(
            "{name:12} {:7.3} s a step, {:5.0} MiB at most beyond the model",
            seconds[ROUNDS / 2],
            *bytes as f64 / f64::from(1 << 20)
        );
    }
    Ok(())
}
