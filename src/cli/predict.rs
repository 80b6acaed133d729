use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;

use mtlora::core::device;
use mtlora::train::{Example, Objective, StoredConfig, encode, predict};
use serde_json::{Map, Value, json};

use super::{hub, output};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run that predicts.
    #[arg(long)]
    run: PathBuf,
    /// Text, one example a line; the two texts of a pair have a tab between [default: standard
    /// input].
    #[arg(long)]
    input: Option<PathBuf>,
    /// What comes out, on standard output.
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let (run, stored) = hub::open_run(&args.run)?;
    let StoredConfig::Classification(config) = stored else {
        return Err(format!(
            "{}: its task asks for texts: use `mtlora generate`",
            args.run.display()
        )
        .into());
    };
    let examples = match &args.input {
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|error| format!("{name}: {error}"))?;
            read(BufReader::new(file), &name)?
        }
        None => read(io::stdin().lock(), "standard input")?,
    };
    let device = device(&config.device)?;
    let parts = run.load(&config, &device)?;
    let items = encode(&parts.text, &examples)?;
    let logits = predict(&parts.model, &parts.config, &items, &device)?;
    let count = logits.len();
    match args.format {
        Format::Csv => write_csv(&examples, &logits, &config.objective)?,
        Format::Jsonl => write_jsonl(&examples, &logits, &config.objective)?,
    }
    if json {
        output::json(&json!({ "task": config.task, "examples": count }))?;
    }
    Ok(())
}

fn read(lines: impl BufRead, name: &str) -> Result<Vec<Example>, Box<dyn Error>> {
    let mut examples = Vec::new();
    for (index, line) in lines.lines().enumerate() {
        let line = line.map_err(|error| format!("{name}:{}: {error}", index + 1))?;
        let (text, pair) = match line.split_once('\t') {
            Some((text, pair)) => (text.to_string(), Some(pair.to_string())),
            None => (line, None),
        };
        examples.push(Example {
            text,
            pair,
            target: None,
        });
    }
    Ok(examples)
}

/// The likeliest class and all probabilities.
fn classify(logits: &[f32]) -> (usize, Vec<f64>) {
    let highest = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let weights: Vec<f64> = logits
        .iter()
        .map(|logit| f64::from(logit - highest).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    let class = logits.iter().position(|logit| *logit == highest);
    (
        class.unwrap_or(0),
        weights.into_iter().map(|weight| weight / sum).collect(),
    )
}

fn write_csv(
    examples: &[Example],
    logits: &[Vec<f32>],
    objective: &Objective,
) -> Result<(), Box<dyn Error>> {
    let mut out = csv::Writer::from_writer(io::stdout().lock());
    let labels = objective.labels();
    let mut header = vec!["text".to_string(), "pair".into(), "prediction".into()];
    header.extend(labels.iter().map(|label| format!("p({label})")));
    out.write_record(&header)?;
    for (example, logits) in examples.iter().zip(logits) {
        let mut row = vec![
            example.text.clone(),
            example.pair.clone().unwrap_or_default(),
        ];
        match objective {
            Objective::Regression => row.extend(logits.iter().map(f32::to_string)),
            Objective::Classification { labels } => {
                let (class, probabilities) = classify(logits);
                row.push(labels.get(class).cloned().unwrap_or_default());
                row.extend(probabilities.iter().map(|p| format!("{p:.6}")));
            }
        }
        out.write_record(&row)?;
    }
    Ok(out.flush()?)
}

fn write_jsonl(
    examples: &[Example],
    logits: &[Vec<f32>],
    objective: &Objective,
) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for (example, logits) in examples.iter().zip(logits) {
        let mut row = Map::new();
        row.insert("text".into(), json!(example.text));
        if let Some(pair) = &example.pair {
            row.insert("pair".into(), json!(pair));
        }
        match objective {
            Objective::Regression => {
                row.insert("prediction".into(), json!(logits.first()));
            }
            Objective::Classification { labels } => {
                let (class, probabilities) = classify(logits);
                row.insert("prediction".into(), json!(labels.get(class)));
                let by_label: Map<String, Value> = labels
                    .iter()
                    .cloned()
                    .zip(probabilities.into_iter().map(|p| json!(p)))
                    .collect();
                row.insert("probabilities".into(), Value::Object(by_label));
            }
        }
        writeln!(out, "{}", Value::Object(row))?;
    }
    Ok(())
}
