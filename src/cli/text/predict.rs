use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use mtlora::train::{
    DataError, Example, FitError, Input, InputColumns, LoadedClassifier, ModelSpec, Objective,
    Pairs, RoutedColumns, RoutedRow, RunError, is_table, load_classifiers, predict, predict_routed,
    read_inputs, read_routed,
};
use serde_json::{Map, Value, json};

use crate::cli::console::output;
use crate::cli::model::adapted;
use crate::cli::model::adapted::{Classifier, Source, TrainedModel};
use crate::cli::model::device;
use crate::cli::model::finished::CheckpointArgs;
use crate::cli::model::plain;
use crate::cli::settings::defaults::{self, HelpDefaults};
use crate::cli::settings::task;
use crate::cli::settings::task::OwnedColumns;
use crate::cli::text::encoding;
use crate::cli::text::several::{self, Named, SeveralArgs};
use crate::cli::text::standard_input::{self, STANDARD_INPUT};

/// The default column of the text.
const TEXT: &str = "text";

#[derive(clap::Args)]
#[command(mut_args(defaults::add_to_help(help_defaults())))]
pub(crate) struct Args {
    /// The run to predict with.
    #[arg(
        long,
        conflicts_with = "adapter",
        required_unless_present_any = ["adapter", "model"]
    )]
    run: Option<PathBuf>,
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// Instead of a run: an adapter (of a run, or LoRA saved by PEFT) for --model. With --adapter-column, repeat the flag
    /// for each adapter, with the name that the rows use.
    #[arg(long, value_name = "[NAME=]DIR")]
    adapter: Vec<String>,
    /// Instead of a run: a model with a classification head, such as one that `mtlora merge` wrote: a folder, or a name on
    /// the Hub. Its config.json names the labels. Or the base model of --adapter, or that of --run if it is no longer where
    /// the run found it.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The texts: a table (.csv, .tsv, .jsonl), or one example on each line, with a tab between the two texts of
    /// a pair [default: lines on standard input].
    #[arg(long)]
    input: Option<PathBuf>,
    #[command(flatten)]
    several: SeveralArgs,
    /// The column of a table with the text.
    #[arg(long, requires = "input")]
    text_column: Option<String>,
    /// The column of a table with the second text of a pair [default: the run's, or none; with --adapter-column: none].
    #[arg(long, requires = "input")]
    pair_column: Option<String>,
    /// The device [default: the run's, or the first].
    #[arg(long)]
    device: Option<String>,
    /// The format of the predictions on standard output.
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

/// The defaults that the help shows.
fn help_defaults() -> HelpDefaults {
    let column = format!("the run's, or {TEXT}; with --adapter-column: {TEXT}");
    vec![("text_column", column)]
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    if let Some(column) = args.several.adapter_column.clone() {
        return several(args, &column, json);
    }
    let model = Predictor::find(&args)?;
    let trained = model.text_columns();
    let inputs = match &args.input {
        Some(path) => args.read(path, &trained)?,
        None => {
            let columns = args.columns(trained.first())?;
            standard_input::lines(columns.pairs)?
        }
    };
    let lines: Vec<usize> = inputs.iter().map(|input| input.line).collect();
    let examples: Vec<Example> = inputs
        .into_iter()
        .map(|input| Example {
            text: input.text,
            pair: input.pair,
            target: None,
        })
        .collect();
    let device = device::open(&model.device_name(args.device.as_deref())?)?;
    let parts = model.load(&device)?;
    let name = args.input.as_ref().map(|path| path.display().to_string());
    let name = name.as_deref().unwrap_or(STANDARD_INPUT);
    let items = encoding::encoded(&parts.text, &examples, |number| {
        format!("{name}:{}", encoding::line_of(&lines, number))
    })?;
    let most = parts.text.max_length();
    let full = items.iter().filter(|item| item.tokens.len() >= most);
    match full.count() {
        0 => {}
        1 => note!("{name}: 1 text has the maximum of {most} tokens and may have been cut"),
        count => {
            note!("{name}: {count} texts have the maximum of {most} tokens and may have been cut")
        }
    }
    let logits = predict(&parts.model, &parts.config, &items, &device)?;
    let count = logits.len();
    match args.format {
        Format::Csv => write_csv(&examples, &logits, model.objective())?,
        Format::Jsonl => write_jsonl(&examples, &logits, model.objective())?,
    }
    if json {
        output::json(&json!({ "task": model.task(), "examples": count }))?;
    }
    Ok(())
}

/// What predicts.
enum Predictor {
    /// A run, or an adapter on a model.
    Trained(Box<TrainedModel<Classifier>>),
    /// A model that is used as its folder has it.
    Plain {
        folder: PathBuf,
        objective: Objective,
    },
}

impl Predictor {
    /// What the flags name.
    fn find(args: &Args) -> Result<Self, Box<dyn Error>> {
        let adapter = several::only(&args.adapter)?;
        if let (None, None, Some(model)) = (&args.run, &adapter, &args.model) {
            let (folder, objective) = plain::find_with_head(model)?;
            return Ok(Self::Plain { folder, objective });
        }
        let source = Source {
            run: args.run.clone(),
            checkpoint: args.checkpoint,
            adapter,
            model: args.model.clone(),
        };
        let trained = adapted::source(source, args.device.as_deref())?;
        Ok(Self::Trained(Box::new(trained.classifier()?)))
    }

    /// The columns of the task that it was trained on, as [`text_columns`].
    fn text_columns(&self) -> Vec<OwnedColumns> {
        match self {
            Self::Trained(trained) => text_columns(trained),
            Self::Plain { .. } => Vec::new(),
        }
    }

    /// The device that computes.
    fn device_name(&self, wanted: Option<&str>) -> Result<String, Box<dyn Error>> {
        match self {
            Self::Trained(trained) => Ok(wanted.unwrap_or(&trained.device).to_string()),
            Self::Plain { .. } => device::name_or_default(wanted),
        }
    }

    fn load(&self, device: &Device) -> Result<LoadedClassifier, Box<dyn Error>> {
        match self {
            Self::Trained(trained) => Ok(trained.model.spec.load(&trained.folder, device)?),
            Self::Plain { folder, objective } => plain::load(folder, objective, None, device),
        }
    }

    /// The outputs.
    fn objective(&self) -> &Objective {
        match self {
            Self::Trained(trained) => &trained.model.spec.head.objective,
            Self::Plain { objective, .. } => objective,
        }
    }

    /// The name of the task that it was trained on; empty if that is not known.
    fn task(&self) -> &str {
        match self {
            Self::Trained(trained) => {
                let run = trained.model.run.as_ref();
                run.map_or("", |run| &run.data.task)
            }
            Self::Plain { .. } => "",
        }
    }
}

impl Args {
    /// Reads the inputs in a file. `trained` are the layouts that the model was trained on; the first one whose
    /// columns exist is used.
    fn read(&self, path: &Path, trained: &[OwnedColumns]) -> Result<Vec<Input>, Box<dyn Error>> {
        if self.text_column.is_some() && !is_table(path) {
            return Err(format!(
                "--text-column is for tables (.csv, .tsv, .jsonl), and {} has lines of text: leave it out, or rename the \
                 file",
                path.display()
            )
            .into());
        }
        let first = read_inputs(path, &self.columns(trained.first())?);
        let Err(DataError::UnknownColumn { .. }) = &first else {
            return Ok(first?);
        };
        for other in trained.iter().skip(1) {
            if let Ok(inputs) = read_inputs(path, &self.columns(Some(other))?) {
                return Ok(inputs);
            }
        }
        Ok(first?)
    }

    /// The columns to read, from the flags or from the layout that the model was trained on.
    fn columns<'a>(
        &'a self,
        trained: Option<&'a OwnedColumns>,
    ) -> Result<InputColumns<'a>, Box<dyn Error>> {
        let pairs = match (&self.pair_column, trained) {
            (Some(_), Some(OwnedColumns { pair: None, .. })) => {
                return Err("--pair-column: the run was trained on single texts".into());
            }
            (Some(column), _) => Pairs::Column(column),
            (None, Some(trained)) => match &trained.pair {
                Some(column) => Pairs::Column(column),
                None => Pairs::Single,
            },
            (None, None) => Pairs::Unknown,
        };
        let of_run = trained.map(|columns| columns.text.as_str());
        let text = self.text_column.as_deref().or(of_run);
        Ok(InputColumns {
            text: text.unwrap_or(TEXT),
            pairs,
        })
    }
}

/// Predicts each row of a table with the adapter that the row names.
fn several(args: Args, column: &str, json: bool) -> Result<(), Box<dyn Error>> {
    let adapters = several::open(
        &args.adapter,
        args.model.as_deref(),
        args.device.as_deref(),
        TrainedModel::classifier,
    )?;
    let columns = RoutedColumns {
        adapter: column,
        text: args.text_column.as_deref().unwrap_or(TEXT),
        pair: args.pair_column.as_deref(),
    };
    let names: Vec<&str> = adapters.iter().map(|one| one.name.as_str()).collect();
    let table = several::table(args.input.as_deref())?;
    let rows = read_routed(table, columns, &names)?;
    let rows = as_trained(rows, &adapters, table, columns.pair.is_some())?;
    let device = device::open(
        args.device
            .as_deref()
            .unwrap_or(&adapters[0].trained.device),
    )?;
    let specs = adapters
        .iter()
        .map(|one| one.adapter(|model| model.spec.clone()));
    let specs: Vec<_> = specs.collect();
    let models =
        load_classifiers(&specs, &device).map_err(|error| several::load_error(error, &specs))?;
    let logits = predict_routed(&models, &rows, &device).map_err(|error| match error {
        RunError::Fit(FitError::Model(error)) => encoding::located(error, |number| {
            let line = number.checked_sub(1).and_then(|at| rows.get(at));
            format!(
                "{}:{}",
                table.display(),
                line.map_or(number, |row| row.line)
            )
        }),
        other => other.into(),
    })?;
    match args.format {
        Format::Csv => write_several_csv(&adapters, &rows, &logits)?,
        Format::Jsonl => {
            let mut out = output::stdout();
            for (row, logits) in rows.iter().zip(&logits) {
                let adapter = &adapters[row.adapter];
                let mut map = of_example(&row.text, row.pair.as_deref());
                map.insert("adapter".into(), json!(adapter.name));
                map.append(&mut prediction(logits, objective(adapter)));
                writeln!(out, "{}", output::json_text(&map)?)?;
            }
        }
    }
    if json {
        output::json(&json!({ "adapters": names, "examples": rows.len() }))?;
    }
    Ok(())
}

/// The objective of an adapter.
fn objective(adapter: &Named<Classifier>) -> &Objective {
    &adapter.trained.model.spec.head.objective
}

/// The text columns of the task that a model was trained on, one entry for each layout of its files; empty if the
/// task is unknown.
fn text_columns(trained: &TrainedModel<Classifier>) -> Vec<OwnedColumns> {
    let run = trained.model.run.as_ref();
    run.map(task::text_columns).unwrap_or_default()
}

/// Checks that each row has one text or two, as its adapter was trained. `table` is the path of the file, and
/// `has_pairs` whether a column for the second text was named.
fn as_trained(
    mut rows: Vec<RoutedRow>,
    adapters: &[Named<Classifier>],
    table: &Path,
    has_pairs: bool,
) -> Result<Vec<RoutedRow>, Box<dyn Error>> {
    let trained: Vec<Option<OwnedColumns>> = adapters
        .iter()
        .map(|adapter| text_columns(&adapter.trained).into_iter().next())
        .collect();
    for row in &mut rows {
        let Some(Some(columns)) = trained.get(row.adapter) else {
            continue;
        };
        let name = &adapters[row.adapter].name;
        let place = format!("{}:{}", table.display(), row.line);
        match (&columns.pair, &row.pair) {
            (Some(_), None) if !has_pairs => {
                return Err(format!(
                    "{place}: the adapter {name} was trained on pairs of texts: name the column with the second text \
                     (--pair-column)"
                )
                .into());
            }
            (None, Some(pair)) if !pair.is_empty() => {
                return Err(format!(
                    "{place}: the adapter {name} was trained on single texts, and the row has a second one: leave its \
                     cell empty"
                )
                .into());
            }
            (None, Some(_)) => row.pair = None,
            _ => {}
        }
    }
    Ok(rows)
}

/// Writes the predictions of several adapters. Their labels differ, so each row has only the probability of its most
/// likely label.
fn write_several_csv(
    adapters: &[Named<Classifier>],
    rows: &[RoutedRow],
    logits: &[Vec<f32>],
) -> Result<(), Box<dyn Error>> {
    let mut out = csv::Writer::from_writer(output::stdout());
    out.write_record(["text", "pair", "adapter", "prediction", "probability"])?;
    for (row, logits) in rows.iter().zip(logits) {
        let adapter = &adapters[row.adapter];
        let (prediction, probability) = match objective(adapter) {
            Objective::Regression => {
                let value = logits.first().map(f32::to_string);
                (value.unwrap_or_default(), String::new())
            }
            Objective::Classification { labels } => {
                let (class, probabilities) = classify(logits);
                let label = labels.get(class).cloned().unwrap_or_default();
                let probability = probabilities.get(class).copied().unwrap_or_default();
                (label, format!("{probability:.6}"))
            }
        };
        let pair = row.pair.clone().unwrap_or_default();
        let name = adapter.name.clone();
        out.write_record([row.text.clone(), pair, name, prediction, probability])?;
    }
    Ok(out.flush()?)
}

/// The most likely class, and the probabilities of all classes.
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
    let mut out = csv::Writer::from_writer(output::stdout());
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
    let mut out = output::stdout();
    for (example, logits) in examples.iter().zip(logits) {
        let mut row = of_example(&example.text, example.pair.as_deref());
        row.append(&mut prediction(logits, objective));
        writeln!(out, "{}", output::json_text(&row)?)?;
    }
    Ok(())
}

fn of_example(text: &str, pair: Option<&str>) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("text".into(), json!(text));
    if let Some(pair) = pair {
        row.insert("pair".into(), json!(pair));
    }
    row
}

fn prediction(logits: &[f32], objective: &Objective) -> Map<String, Value> {
    let mut row = Map::new();
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
    row.insert("logits".into(), json!(logits));
    row
}
