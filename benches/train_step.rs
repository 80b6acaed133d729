//! Measures a training step of RoBERTa-base (random weights, 16 sequences of 128 tokens, rank 8 on query and value)
//! with each structure, with Burn's own `apply_lora` on the same model, and with `apply_lora` on the same model made
//! of Burn's modules, in turn. This shows what a structure costs, what computing on the factors saves, and how fast a
//! model is that is written with `burn::nn`. `mtlora bench step` measures one structure alone, and
//! `benches/compare.py` measures beside PEFT.
//!
//! ```text
//! cargo bench --bench train_step
//! ```

use std::error::Error;
use std::time::Instant;

use burn::module::{Lora, Module, ParamGroup};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{
    Dropout, DropoutConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig,
};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Int, Tensor};
use mtlora::core::{MtLoraConfig, Structure, Targets, devices};
use mtlora::models::{Architecture, EncoderConfig, EncoderSizes, SequenceClassifier};
use mtlora::train::bench::{Subject, random_items};
use mtlora::train::{Method, TrainOptions, adamw};

const BATCH: usize = 16;
const LENGTH: usize = 128;
const ROUNDS: usize = 5;

/// RoBERTa's classifier made of Burn's own modules, with the same sizes, for batches without padding.
#[derive(Module, Debug)]
struct BurnRoberta {
    words: Embedding,
    positions: Embedding,
    norm: LayerNorm,
    dropout: Dropout,
    encoder: TransformerEncoder,
    dense: Linear,
    classifier: Linear,
}

impl BurnRoberta {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let embedding = |rows| EmbeddingConfig::new(rows, hidden).init(device);
        let encoder = TransformerEncoderConfig::new(
            hidden,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_hidden_layers,
        );
        Self {
            words: embedding(config.vocab_size),
            positions: embedding(config.max_position_embeddings),
            norm: LayerNormConfig::new(hidden).init(device),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
            encoder: encoder.init(device),
            dense: LinearConfig::new(hidden, hidden).init(device),
            classifier: LinearConfig::new(hidden, config.num_labels()).init(device),
        }
    }

    /// `[batch, tokens]` to `[batch, labels]`.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        let [batch, tokens] = ids.dims();
        let positions = Tensor::<1, Int>::arange(0..tokens as i64, &ids.device());
        let positions = self
            .positions
            .forward(positions.reshape([1, tokens as i32]));
        let embedded = self.norm.forward(self.words.forward(ids) + positions);
        let input = TransformerEncoderInput::new(self.dropout.forward(embedded));
        let hidden = self.encoder.forward(input);
        let width = hidden.dims()[2];
        let first = hidden.narrow(1, 0, 1).reshape([batch, width]);
        self.classifier.forward(tanh(self.dense.forward(first)))
    }
}

/// A [`BurnRoberta`] in training.
struct BurnSubject {
    model: BurnRoberta,
    optimizer: ModuleOptimizer,
    ids: Tensor<2, Int>,
    labels: Tensor<1, Int>,
}

impl BurnSubject {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        let adapted = ParamGroup::from_any_predicates(vec!["query.weight", "value.weight"]);
        let model = BurnRoberta::new(config, device)
            .apply_lora(Lora::new(8, 16.0).set_param_group(adapted))
            .set_require_grad_group(
                ParamGroup::from_any_predicates(vec!["dense.", "classifier."]),
                true,
            );
        let ids = Tensor::<1, Int>::arange(5..(5 + BATCH * LENGTH) as i64, device);
        Self {
            model,
            optimizer: adamw(0.1),
            ids: ids.reshape([BATCH, LENGTH]),
            labels: Tensor::ones([BATCH], device),
        }
    }

    /// Makes a step; also returns the seconds that it took.
    fn step(mut self) -> Result<(Self, f64), Box<dyn Error>> {
        let start = Instant::now();
        let device = self.ids.device();
        let logits = self.model.forward(self.ids.clone());
        let loss = CrossEntropyLossConfig::new()
            .init(&device)
            .forward(logits, self.labels.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self.optimizer.step(4e-4, self.model, gradients);
        device.sync()?;
        Ok((self, start.elapsed().as_secs_f64()))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test` runs benches too, to see that they build.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let named = devices().remove(0);
    let device = named.device.autodiff();
    let config = EncoderConfig::new(
        Architecture::Roberta,
        EncoderSizes {
            vocab_size: 50_265,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_tokens: 512,
        },
    )?;
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
    models.push(("apply_lora", burns));

    let mut subjects: Vec<_> = models
        .into_iter()
        .map(|(name, model)| {
            let subject = Subject::classifier(model, &config, &items, &options, &device);
            (name, subject, Vec::new())
        })
        .collect();
    let mut burn_subject = BurnSubject::new(&config, &device);
    let mut burn_seconds = Vec::new();
    let batch: Vec<usize> = (0..BATCH).collect();
    // The first round is not counted.
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
        let (stepped, took) = burn_subject.step()?;
        burn_subject = stepped;
        if round > 0 {
            burn_seconds.push(took);
        }
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
    let seconds = median(&burn_seconds);
    println!(
        "| apply_lora, on Burn's own modules | {seconds:.3} | {:.3} |",
        seconds / baseline
    );
    Ok(())
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
