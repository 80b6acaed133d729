//! A training step of RoBERTa-base (random weights, 16 sequences of 128 tokens, rank 8 on query and
//! value) with each structure, and with Burn's own `apply_lora` on the same model, in turn: what a
//! structure costs, and what the adapter's own layer saves. `mtlora bench step` measures one of them
//! alone, `benches/compare.py` beside PEFT.
//!
//! ```text
//! cargo bench --bench train_step
//! ```

use std::error::Error;

use burn::module::{Lora, Module, ParamGroup};
use mtlora::core::{MtLoraConfig, Structure, Targets, devices};
use mtlora::models::SequenceClassifier;
use mtlora::train::bench::{Subject, random_items, roberta_base};
use mtlora::train::{Method, TrainOptions};

const BATCH: usize = 16;
const LENGTH: usize = 128;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test` runs benches too, to see that they build.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let named = devices().remove(0);
    let device = named.device.autodiff();
    let config = roberta_base()?;
    let model = SequenceClassifier::fresh(&config, 0, &device)?;
    let items = random_items(&config, [BATCH, LENGTH], 0);
    let options = TrainOptions::default();

    let structures = Structure::ALL.map(|structure| {
        let config = MtLoraConfig::new(structure)
            .with_target_modules(Targets::names(["query", "value"]))
            .with_modules_to_save(vec!["classifier".to_string()]);
        let prepared = Method::MtLora(config).prepare(model.clone());
        prepared.map(|model| (structure.name(), model))
    });
    let mut models = structures.into_iter().collect::<Result<Vec<_>, _>>()?;
    let adapted = ParamGroup::from_any_predicates(vec!["query.weight", "value.weight"]);
    let burns = model
        .apply_lora(Lora::new(8, 16.0).set_param_group(adapted))
        .set_require_grad_group(ParamGroup::from_predicate("classifier."), true);
    models.push(("Burn's apply_lora", burns));

    let mut subjects: Vec<_> = models
        .into_iter()
        .map(|(name, model)| {
            let subject = Subject::classifier(model, &config, &items, &options, &device);
            (name, subject, Vec::new())
        })
        .collect();
    let batch: Vec<usize> = (0..BATCH).collect();
    // The first round is not kept.
    for round in 0..=ROUNDS {
        let mut after = Vec::with_capacity(subjects.len());
        for (name, subject, mut seconds) in subjects {
            let (subject, took) = subject.step(&batch)?;
            if round > 0 {
                seconds.push(took);
            }
            after.push((name, subject, seconds));
        }
        subjects = after;
    }

    println!(
        "RoBERTa-base, {BATCH} x {LENGTH} tokens, on {}, median of {ROUNDS}:\n",
        named.name
    );
    println!("| adapter | seconds a step | of lora's |\n|---|---|---|");
    let baseline = subjects
        .iter()
        .find(|(name, ..)| *name == Structure::Lora.name())
        .map_or(f64::NAN, |(.., seconds)| median(seconds));
    for (name, _, seconds) in &subjects {
        let seconds = median(seconds);
        println!("| {name} | {seconds:.3} | {:.3} |", seconds / baseline);
    }
    Ok(())
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
