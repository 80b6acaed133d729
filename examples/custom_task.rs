//! Defines a task outside the crates and trains on it: is a sentence about the sea?
//!
//! It needs no network: the model is a tiny one with random weights, all of which are trained.
//!
//! ```text
//! cargo run --release --example custom_task
//! ```

use std::path::{Path, PathBuf};

use mtlora::core::{State, devices};
use mtlora::models::{
    Architecture, EncoderConfig, EncoderSizes, SequenceClassifier, TextEncoder, train_tokenizer,
};
use mtlora::train::{
    BatchSize, ClassificationData, DataError, Example, FitError, Method, Objective, Observer,
    Scores, StepReport, Target, Task, TaskData, TrainOptions, encode, task_config, train,
};

/// The task: a name, an objective and a way to read examples; everything else has defaults.
struct Sea(Objective);

impl TaskData for Sea {
    type Item = Example;

    fn name(&self) -> &str {
        "sea"
    }

    fn read(&self, _data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
        let subjects = [
            "the sailor",
            "a gull",
            "my aunt",
            "the captain",
            "every child",
        ];
        let verbs = ["sees", "likes", "forgets", "paints"];
        let places = [
            ("the harbour", 1),
            ("the waves", 1),
            ("a beach", 1),
            ("the desert", 0),
            ("a forest", 0),
            ("the market", 0),
        ];
        let (mut examples, mut number) = (Vec::new(), 0);
        for subject in subjects {
            for verb in verbs {
                for (place, class) in places {
                    number += 1;
                    // Every fourth sentence is kept for the dev split.
                    if (number % 4 == 0) == (split == self.dev_split()) {
                        examples.push(Example {
                            text: format!("{subject} {verb} {place}"),
                            pair: None,
                            target: Some(Target::Class(class)),
                        });
                    }
                }
            }
        }
        Ok(examples)
    }
}

impl Task for Sea {
    fn objective(&self) -> &Objective {
        &self.0
    }
}

struct Print;

impl Observer for Print {
    fn step(&mut self, _: &StepReport) -> Result<(), FitError> {
        Ok(())
    }

    fn evaluated(
        &mut self,
        step: usize,
        scores: &Scores,
        _: Option<&State>,
    ) -> Result<(), FitError> {
        println!("after step {step}: {scores}");
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let labels = vec!["land".to_string(), "sea".to_string()];
    let task = Sea(Objective::Classification { labels });
    let folder = Path::new("");
    let train_examples = task.read(folder, task.train_split())?;
    let dev_examples = task.read(folder, task.dev_split())?;

    let lines: Vec<&str> = train_examples.iter().map(|e| e.text.as_str()).collect();
    let tokenizer = train_tokenizer(lines.iter(), 300)?;
    let sizes = EncoderSizes {
        vocab_size: tokenizer.get_vocab_size(true),
        hidden_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 64,
        max_tokens: 32,
    };
    let config = task_config(
        &EncoderConfig::new(Architecture::Roberta, sizes)?,
        task.objective(),
    )?;
    let text = TextEncoder::new(PathBuf::from("tokenizer.json"), tokenizer, &config, 32)?;

    let device = devices().remove(0).device.autodiff();
    let model = Method::Full.prepare(SequenceClassifier::fresh(&config, 0, &device)?)?;
    let options = TrainOptions {
        batch: BatchSize::Sequences(8),
        learning_rate: 2e-3,
        epochs: 20,
        eval_steps: Some(60),
        ..TrainOptions::default()
    };
    let items = encode(&text, &train_examples)?;
    let dev = encode(&text, &dev_examples)?;
    let trained = train(
        model,
        ClassificationData {
            config: &config,
            task: &task,
            items: &items,
            dev: &dev,
        },
        &options,
        None,
        &device,
        &mut Print,
    )?;
    println!("best after step {}: {}", trained.best_step, trained.best);
    Ok(())
}
