//! A model family from outside the crates is registered, found by its `model_type`, trained with an adapter and used
//! to generate texts, and its adapter is saved and loaded in PEFT's format.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};
use mtlora_core::{
    ActivationDtype, MtLoraConfig, State, Structure, Targets, adapted_embedding, adapted_linear,
    devices,
};
use mtlora_models::{
    Attention, AttentionContext, AttentionSpec, CausalConfig, CausalFamily, CausalLm, CausalModel,
    CausalModelConfig, CausalText, Checkpoint, CheckpointLayout, ConfigFile, END_OF_TEXT,
    GenerationConfig, LayerNorm, ModelConfig, ModelError, ModelFamilies, ModelFamily, ModelSizes,
    OperationCounter, PeftAdapter, Projections, TextConfig, train_causal_tokenizer,
    write_causal_tokenizer, zero_embedding, zero_linear,
};
use mtlora_train::bench::{Trains, causal_flops};
use mtlora_train::data_to_text::Record;
use mtlora_train::{
    BatchSize, CausalData, FitError, LoadedGenerator, Method, MetricName, Observer, PromptForm,
    Scores, StepReport, TrainOptions, WriteOptions, causal_scores, encode_records, train_causal,
};

const TOY: &str = "toy";

/// Token and position embeddings, one attention block, and the embeddings again as the output map.
#[derive(Module, Debug)]
struct Toy {
    tokens: Embedding,
    positions: Embedding,
    query_key_value: Linear,
    output: Linear,
    norm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    attention: Attention,
}

impl CausalModel for Toy {
    fn embed(&self, ids: Tensor<1, Int>, positions: Tensor<1, Int>) -> Tensor<2> {
        adapted_embedding(&self.tokens, ids) + adapted_embedding(&self.positions, positions)
    }

    fn layers(&self) -> usize {
        1
    }

    fn layer(
        &self,
        _index: usize,
        hidden: Tensor<2>,
        attention: &mut dyn AttentionContext,
    ) -> Tensor<2> {
        let fused = adapted_linear(&self.query_key_value, hidden.clone());
        let context = attention.attend(
            &self.attention,
            Projections::Fused(fused),
            &self.dropout,
            ActivationDtype::F32,
        );
        hidden + adapted_linear(&self.output, context)
    }

    fn finish(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.norm.forward(hidden)
    }

    fn output_map(&self) -> Tensor<2> {
        self.tokens.weight.val()
    }

    fn ties_output_map(&self) -> bool {
        true
    }
}

#[derive(Clone, Debug)]
struct ToyConfig {
    vocab_size: usize,
    width: usize,
    heads: usize,
    max_tokens: usize,
    end_of_text: u32,
}

impl TextConfig for ToyConfig {
    fn model_type(&self) -> &str {
        TOY
    }

    fn tokenizer_class(&self) -> Option<&str> {
        None
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }
}

impl CheckpointLayout for ToyConfig {
    fn prefix(&self) -> String {
        "toy.".to_string()
    }

    fn stored_name(&self, path: &str) -> String {
        let path = path.replace("gamma", "weight").replace("beta", "bias");
        format!("toy.{path}")
    }

    fn transposes_linear(&self) -> bool {
        true
    }

    fn foreign(&self, _name: &str) -> bool {
        false
    }

    fn init_std(&self, _path: &str) -> f64 {
        0.3
    }

    fn to_json(&self) -> String {
        serde_json::json!({
            "model_type": TOY,
            "vocab_size": self.vocab_size,
            "width": self.width,
            "heads": self.heads,
            "max_tokens": self.max_tokens,
            "end_of_text": self.end_of_text,
        })
        .to_string()
    }

    fn task_type(&self) -> &'static str {
        "CAUSAL_LM"
    }
}

impl CausalModelConfig for ToyConfig {
    fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    fn empty(
        &self,
        _checkpoint: Option<&Checkpoint>,
        device: &Device,
    ) -> Result<CausalLm, ModelError> {
        let width = self.width;
        let attention = AttentionSpec::new(self.heads, width / self.heads).causal();
        Ok(CausalLm::new(Toy {
            tokens: zero_embedding(self.vocab_size, width, device),
            positions: zero_embedding(self.max_tokens, width, device),
            query_key_value: zero_linear(width, 3 * width, device),
            output: zero_linear(width, width, device),
            norm: LayerNorm::new(width, 1e-5, device),
            dropout: DropoutConfig::new(0.0).init(),
            attention: attention.build()?,
        }))
    }

    fn with_tied_output_map(&self, _tied: bool) -> CausalConfig {
        CausalConfig::of(self.clone())
    }

    fn count_layers(&self, counter: &mut dyn OperationCounter, tokens: f64, pairs: f64) -> bool {
        let width = self.width;
        let embedded = counter.embedding("tokens", tokens) | counter.embedding("positions", tokens);
        let fused = counter.linear("query_key_value", tokens, [width, 3 * width], embedded);
        let context = counter.attention(pairs, width, [fused; 3]);
        counter.linear("output", tokens, [width, width], context)
    }

    fn count_output_map(&self, counter: &mut dyn OperationCounter, rows: f64, tracked: bool) {
        counter.linear("tokens", rows, [self.width, self.vocab_size], tracked);
    }
}

#[derive(Debug)]
struct ToyFamily;

impl ModelFamily for ToyFamily {
    fn model_types(&self) -> &[&'static str] {
        &[TOY]
    }

    fn causal(&self) -> Option<&dyn CausalFamily> {
        Some(self)
    }
}

impl CausalFamily for ToyFamily {
    fn read(&self, file: &ConfigFile) -> Result<CausalConfig, ModelError> {
        let size = |field, what| file.size(field, what, 1..=1 << 16);
        Ok(CausalConfig::of(ToyConfig {
            vocab_size: size("vocab_size", "is the number of tokens")?,
            width: size("width", "is the width of the hidden states")?,
            heads: size("heads", "is the number of attention heads")?,
            max_tokens: size("max_tokens", "is the number of positions")?,
            end_of_text: file.size("end_of_text", "is the end of a text", 0..=1 << 16)? as u32,
        }))
    }

    fn with_sizes(&self, _type: &str, sizes: &ModelSizes) -> Result<CausalConfig, ModelError> {
        Ok(CausalConfig::of(ToyConfig {
            vocab_size: sizes.vocab_size,
            width: sizes.hidden_size,
            heads: sizes.heads,
            max_tokens: sizes.max_tokens,
            end_of_text: sizes.end_of_text.unwrap_or_default(),
        }))
    }
}

/// Counts steps, and ignores everything else.
#[derive(Default)]
struct Counted(usize);

impl Observer for Counted {
    fn step(&mut self, _report: &StepReport) -> Result<(), FitError> {
        self.0 += 1;
        Ok(())
    }

    fn evaluated(
        &mut self,
        _step: usize,
        _scores: &Scores,
        _best: Option<&State>,
    ) -> Result<(), FitError> {
        Ok(())
    }
}

const RECORDS: [(&str, &str); 2] = [
    ("food : fish", "They serve fresh fish."),
    ("place : river", "It is by the river."),
];

fn records() -> Vec<Record> {
    RECORDS
        .map(|(input, text)| Record {
            input: input.to_string(),
            references: vec![text.to_string()],
            ..Record::default()
        })
        .to_vec()
}

/// A base model with random weights and its tokenizer, in `folder`.
fn make_base(folder: &Path, families: &ModelFamilies) {
    let lines = RECORDS.iter().flat_map(|(input, text)| [*input, *text]);
    let tokenizer = train_causal_tokenizer(lines, 300).unwrap();
    let sizes = ModelSizes {
        vocab_size: tokenizer.get_vocab_size(true),
        hidden_size: 32,
        layers: 1,
        heads: 4,
        key_value_heads: None,
        head_width: None,
        intermediate_size: None,
        max_tokens: 64,
        end_of_text: tokenizer.token_to_id(END_OF_TEXT),
    };
    let config = families.new_causal(TOY, &sizes).unwrap();
    write_causal_tokenizer(&tokenizer, folder, sizes.max_tokens).unwrap();
    let model = CausalLm::fresh(&config, 1, &devices().remove(0).device).unwrap();
    model.save(folder, &config).unwrap();
}

fn texts(model: CausalLm, config: &CausalConfig, folder: &Path, device: &Device) -> Vec<String> {
    let generator = LoadedGenerator {
        model,
        config: config.clone(),
        text: CausalText::from_folder(folder, config).unwrap(),
    };
    let options = WriteOptions {
        decoding: GenerationConfig {
            num_beams: 3,
            max_new_tokens: 24,
            eos_token_ids: vec![config.end_of_text()],
            ..GenerationConfig::default()
        },
        form: PromptForm::Input,
        cut: false,
    };
    let inputs = RECORDS.map(|(input, _)| input);
    let written = generator.write(&inputs, &options, device, &mut |_| ());
    written.unwrap().into_iter().map(|one| one.text).collect()
}

#[test]
fn a_family_from_outside_trains_generates_and_saves_its_adapter() {
    let base = tempfile::tempdir().unwrap();
    let families = ModelFamilies::builtin().with(ToyFamily);
    make_base(base.path(), &families);

    // Without the family, the folder is refused.
    let error = ModelFamilies::builtin().open(base.path()).unwrap_err();
    assert!(error.to_string().contains("`toy`"), "{error}");
    let ModelConfig::Causal(config) = families.open(base.path()).unwrap() else {
        panic!("the toy is a causal model");
    };
    assert_eq!(config.model_type(), TOY);

    let plain = devices().remove(0).device;
    let device = plain.clone().autodiff();
    let text = CausalText::from_folder(base.path(), &config).unwrap();
    let end = config.end_of_text();
    let (sequences, _) = encode_records(&text, end, &records(), config.max_tokens()).unwrap();
    let model = CausalLm::from_folder(base.path(), &config, &device).unwrap();
    let before = causal_scores(&model.valid(), &sequences, &plain).unwrap();
    let adapter = MtLoraConfig::new(Structure::Shim)
        .with_rank(16)
        .with_alpha(32.0)
        .with_target_modules(Targets::names(["query_key_value", "output"]));
    let model = Method::MtLora(adapter).prepare(model).unwrap();
    let trains = Trains::of(&model);
    assert!(causal_flops(&config, &trains, &[8], 7) > 0.0);

    let options = TrainOptions {
        batch: BatchSize::Sequences(2),
        learning_rate: 1e-2,
        epochs: 200,
        eval_steps: Some(50),
        ..TrainOptions::default()
    };
    let mut observer = Counted::default();
    let data = CausalData {
        items: &sequences,
        dev: &sequences,
        label_smoothing: 0.0,
    };
    let trained = train_causal(model, data, &options, None, &device, &mut observer).unwrap();
    assert_eq!(observer.0, 200);
    let loss = |scores: &Scores| scores.get(MetricName::Loss).unwrap();
    assert!(
        loss(&trained.best) < 0.05 * loss(&before),
        "{} from {}",
        loss(&trained.best),
        loss(&before)
    );
    let expected = RECORDS.map(|(_, text)| text.to_string());
    let merged = trained.model.clone().materialize();
    assert_eq!(texts(merged, &config, base.path(), &plain), expected);

    // The adapter is written in PEFT's format and read onto the base model, which then writes the same texts.
    let folder = tempfile::tempdir().unwrap();
    let adapter = PeftAdapter::of(&trained.model, &config, "toy-base", false).unwrap();
    adapter.write(folder.path()).unwrap();
    let model = CausalLm::from_folder(base.path(), &config, &device).unwrap();
    assert_ne!(texts(model.valid(), &config, base.path(), &plain), expected);
    let read = PeftAdapter::from_folder(folder.path()).unwrap();
    let attached = read.attach(model, &config, &[]).unwrap().valid();
    let again = causal_scores(&attached, &sequences, &plain).unwrap();
    assert_eq!(again, trained.best);
    assert_eq!(texts(attached, &config, base.path(), &plain), expected);
}
