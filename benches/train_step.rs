//! A training step of RoBERTa-base (random weights, 16 sequences of 128 tokens, rank 8 on query and
//! value): this project's way, and Burn's own `apply_lora` on the same model, in turn.
//!
//! ```text
//! cargo bench --bench train_step
//! ```
//!
//! What PEFT takes on the same machine is measured by a script of PyTorch's that makes the same
//! model (`RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)`,
//! `LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])`) and times
//! `loss.backward(); optimizer.step()` on 16 x 128 tokens.

use std::error::Error;
use std::time::Instant;

use burn::module::{Lora, Module, ParamGroup};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use mtlora::core::{MtLoraConfig, Structure, Targets, devices};
use mtlora::models::{
    Architecture, EncoderConfig, EncoderSizes, SequenceClassifier, Strip, Tokens,
};
use mtlora::train::{Method, Objective, Target, adamw, loss};

const BATCH: usize = 16;
const LENGTH: usize = 128;
const PAIRS: usize = 5;

struct Subject {
    name: &'static str,
    model: SequenceClassifier,
    optimizer: ModuleOptimizer,
    seconds: Vec<f64>,
}

impl Subject {
    fn new(name: &'static str, model: SequenceClassifier) -> Self {
        Self {
            name,
            model,
            optimizer: adamw(0.1),
            seconds: Vec::new(),
        }
    }

    /// One step; the time of the first is not kept.
    fn step(
        &mut self,
        strip: &Strip,
        objective: &Objective,
        warm: bool,
    ) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let targets = [Target::Class(1); BATCH];
        let loss = loss(self.model.forward(strip), &targets, objective);
        let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self.optimizer.step(4e-4, self.model.clone(), gradients);
        strip.ids.device().sync()?;
        if warm {
            self.seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn median(&mut self) -> f64 {
        self.seconds.sort_by(f64::total_cmp);
        self.seconds[self.seconds.len() / 2]
    }
}

fn roberta_base(device: &Device) -> Result<(SequenceClassifier, EncoderConfig), Box<dyn Error>> {
    let sizes = EncoderSizes {
        vocab_size: 50_265,
        hidden_size: 768,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        intermediate_size: 3072,
        max_tokens: 512,
    };
    let config = EncoderConfig::new(Architecture::Roberta, sizes)?;
    Ok((SequenceClassifier::fresh(&config, 0, device)?, config))
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test` runs benches too, to see that they build.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let named = devices().remove(0);
    let device = named.device.autodiff();
    let (model, config) = roberta_base(&device)?;
    let objective = Objective::Classification {
        labels: config.labels.clone(),
    };
    let sequences: Vec<Tokens> = (0..BATCH)
        .map(|sequence| Tokens {
            ids: (0..LENGTH as u32)
                .map(|place| 5 + (sequence as u32 * 7919 + place * 104_729) % 49_995)
                .collect(),
            type_ids: vec![0; LENGTH],
        })
        .collect();
    let sequences: Vec<&Tokens> = sequences.iter().collect();
    let strip = Strip::new(&sequences, &config, &device)?;

    let ours = |structure| {
        let config = MtLoraConfig::new(structure)
            .with_target_modules(Targets::names(["query", "value"]))
            .with_modules_to_save(vec!["classifier".to_string()]);
        Method::MtLora(config).prepare(model.clone())
    };
    let adapted = ParamGroup::from_any_predicates(vec!["query.weight", "value.weight"]);
    let burns = model
        .clone()
        .apply_lora(Lora::new(8, 16.0).set_param_group(adapted))
        .set_require_grad_group(ParamGroup::from_predicate("classifier."), true);
    let mut subjects = [
        Subject::new("mtlora, lora", ours(Structure::Lora)?),
        Subject::new("mtlora, shim", ours(Structure::Shim)?),
        Subject::new("burn's apply_lora", burns),
    ];
    for round in 0..=PAIRS {
        for subject in &mut subjects {
            subject.step(&strip, &objective, round > 0)?;
        }
    }
    println!(
        "RoBERTa-base, {BATCH} x {LENGTH} tokens, on {}, median of {PAIRS}:",
        named.name
    );
    let baseline = subjects[0].median();
    for subject in &mut subjects {
        let seconds = subject.median();
        println!(
            "{:18} {seconds:7.3} s a step  {:.2} of `mtlora, lora`",
            subject.name,
            seconds / baseline
        );
    }
    Ok(())
}
