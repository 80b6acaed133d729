//! `mtlora data show`: examples as the model sees them.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use mtlora::models::{CausalConfig, CausalText, LossOn, TextConfig};
use mtlora::train::chat::{ChatExample, ChatSequence, ChatTask, HELD_BACK, TooLongChat};
use mtlora::train::{TaskData, TypedConfig};
use serde_json::json;

use crate::cli::chat::examples::{self, Split};
use crate::cli::console::{output, terminal};
use crate::cli::hub;
use crate::cli::model::adapted;
use crate::cli::settings::defaults::{Defaults, HelpDefaults, add_to_help};
use crate::cli::text::encoding;

/// What learned text is written between where there are no colours.
const BRACKETS: [&str; 2] = ["⟦", "⟧"];
/// Green, and bold for those who do not see it.
const COLOUR: [&str; 2] = ["\u{1b}[1;32m", "\u{1b}[0m"];
/// How many examples are shown.
const SHOWN: usize = 3;

/// Looks at the data of `train --task chat`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print conversations as the model sees them: the learned tokens are green, or between brackets where there are no
    /// colours. The last line counts the tokens, and the examples that are cut.
    Show(ShowArgs),
}

#[derive(clap::Args)]
#[command(mut_args(add_to_help(help_defaults())))]
struct ShowArgs {
    /// A run on conversations, whose model, data and settings are used.
    #[arg(long, required_unless_present = "model")]
    run: Option<PathBuf>,
    /// The model whose tokenizer and chat template are used: a folder, or a name on the Hub. With --run: the run's base
    /// model, if it is no longer where the run found it.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The folder with train.jsonl and dev.jsonl, or a JSONL file [default: the run's].
    #[arg(long)]
    data: Option<PathBuf>,
    /// The split.
    #[arg(long)]
    split: Option<String>,
    /// How many examples are shown, from the first.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Show the example on this line of the file alone.
    #[arg(long, conflicts_with = "limit")]
    line: Option<usize>,
    /// Which tokens are learned: assistant, completion, all [default: the run's, or assistant].
    #[arg(long)]
    loss_on: Option<LossOn>,
    /// Maximum number of tokens of an example.
    #[arg(long)]
    max_length: Option<usize>,
    /// What becomes of longer examples: cut, drop [default: the run's, or cut].
    #[arg(long)]
    too_long: Option<TooLongChat>,
}

fn help_defaults() -> HelpDefaults {
    let length = Defaults::chat("llama").max_length;
    vec![
        ("limit", SHOWN.to_string()),
        ("split", "train".to_string()),
        ("max_length", format!("the run's, or {length}")),
    ]
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let Command::Show(args) = args.command;
    show(args, json)
}

/// What examples are encoded with.
struct Source {
    model: PathBuf,
    data: PathBuf,
    loss_on: LossOn,
    max_length: Option<usize>,
    too_long: TooLongChat,
}

impl ShowArgs {
    fn source(&self) -> Result<Source, Box<dyn Error>> {
        let source = match (&self.run, &self.model, &self.data) {
            (Some(run), model, _) => match adapted::open_run(run, model.as_deref())?.typed() {
                TypedConfig::Chat(config) => Source {
                    model: config.base.model,
                    data: config.data.folder,
                    loss_on: config.kind.loss_on,
                    max_length: Some(config.base.max_length),
                    too_long: config.kind.too_long,
                },
                TypedConfig::Classification(_) | TypedConfig::Generation(_) => {
                    return Err(format!(
                        "{}: this run was not trained on conversations (--task chat)",
                        run.display()
                    )
                    .into());
                }
            },
            (None, Some(model), Some(data)) => Source {
                model: hub::model(model, None, |folder| {
                    drop(CausalConfig::from_folder(folder)?);
                    Ok(())
                })?,
                data: data.clone(),
                loss_on: LossOn::default(),
                max_length: None,
                too_long: TooLongChat::default(),
            },
            _ => return Err("--run is needed, or --model with --data".into()),
        };
        Ok(Source {
            data: self.data.clone().unwrap_or(source.data),
            loss_on: self.loss_on.unwrap_or(source.loss_on),
            max_length: self.max_length.or(source.max_length),
            too_long: self.too_long.unwrap_or(source.too_long),
            ..source
        })
    }
}

fn show(args: ShowArgs, json: bool) -> Result<(), Box<dyn Error>> {
    let source = args.source()?;
    let name = args.split.as_deref().unwrap_or(ChatTask.train_split());
    let split = Split::read(&source.data, name)?;
    let config = CausalConfig::from_folder(&source.model)?;
    let text = CausalText::from_folder(&source.model, &config)?;
    let max_length = match source.max_length {
        Some(length) => length.min(config.max_tokens()),
        None => {
            let usual = Defaults::chat("llama").max_length;
            encoding::default_length(&source.model, usual)?.min(config.max_tokens())
        }
    };
    let template = examples::template(&source.model, &text, &[&split.examples])?;
    if let Some(template) = &template {
        examples::note_left_out(template, &[&split.examples]);
    }
    let encoder = examples::encoder(&text, template.as_ref(), &config, source.loss_on);
    let chosen: Vec<&ChatExample> = match args.line {
        Some(line) => split
            .examples
            .iter()
            .filter(|one| one.line == line)
            .collect(),
        None => split
            .examples
            .iter()
            .take(args.limit.unwrap_or(SHOWN))
            .collect(),
    };
    if let (Some(line), true) = (args.line, chosen.is_empty()) {
        let file = split.file.display();
        return Err(
            format!("{file}:{line}: there is no example of the split {name} on this line").into(),
        );
    }
    let marks = if terminal::is_drawable(&io::stdout()) && terminal::is_coloured() {
        COLOUR
    } else {
        BRACKETS
    };
    for example in chosen {
        let failed = |error| format!("{}:{}: {error}", split.file.display(), example.line);
        let sequence = encoder.encode(&example.content).map_err(failed)?;
        let is_long = sequence.ids.len() > max_length;
        say!(
            "{}:{} ({}): {} tokens, {} learned{}",
            split.file.display(),
            example.line,
            example.form,
            sequence.ids.len(),
            sequence.learned_tokens(),
            match source.too_long {
                TooLongChat::Cut if is_long => format!("; cut to {max_length} at ✂"),
                TooLongChat::Drop if is_long =>
                    format!("; left out, since it has more than {max_length}"),
                _ => String::new(),
            }
        )?;
        let mut out = output::stdout();
        let shown = marked(&text, &sequence, max_length, marks)?;
        writeln!(out, "{}\n", shown.trim_end_matches('\n'))?;
    }
    let encoded = split.encode(encoder, max_length, source.too_long)?;
    if name == ChatTask.train_split() && ChatTask.holds_back(&source.data) {
        note!(
            "one example of {HELD_BACK} in this file is held back for evaluation (--split {}), so these are not all",
            ChatTask.dev_split()
        );
    }
    let tokens: usize = encoded.sequences.iter().map(|one| one.ids.len()).sum();
    let learned: usize = encoded
        .sequences
        .iter()
        .map(ChatSequence::learned_tokens)
        .sum();
    let longest = encoded
        .sequences
        .iter()
        .map(|one| one.ids.len())
        .max()
        .unwrap_or(0);
    say!(
        "{name}: {} examples with {tokens} tokens, of which {learned} are learned (--loss-on {}); the longest has {longest}; {}",
        encoded.sequences.len(),
        source.loss_on,
        examples::what_is_used(&encoded, max_length)
    )?;
    if json {
        output::json(&json!({
            "split": name,
            "examples": encoded.sequences.len(),
            "tokens": tokens,
            "learned_tokens": learned,
            "longest": longest,
            "cut": encoded.cut,
            "too_long": encoded.dropped,
            "without_answer": encoded.without_answer,
        }))?;
    }
    Ok(())
}

/// The text of a sequence with marks around what is learned, and a sign where it is cut. Characters that control the
/// terminal are escaped.
fn marked(
    text: &CausalText,
    sequence: &ChatSequence,
    max_length: usize,
    [open, close]: [&str; 2],
) -> Result<String, Box<dyn Error>> {
    let mut shown = String::new();
    let cut = (sequence.ids.len() > max_length).then_some(max_length);
    let learned = sequence
        .learned
        .iter()
        .flat_map(|part| [part.start, part.end]);
    let mut edges: Vec<usize> = learned.chain(cut).chain([0, sequence.ids.len()]).collect();
    edges.sort_unstable();
    edges.dedup();
    for pair in edges.windows(2) {
        let [from, to] = [pair[0], pair[1]];
        if cut == Some(from) {
            shown.push('✂');
        }
        let part = text.decode_all(sequence.ids.get(from..to).unwrap_or_default())?;
        let part = output::printable_lines(&part);
        if sequence.learned.iter().any(|part| part.contains(&from)) {
            shown.push_str(&format!("{open}{part}{close}"));
        } else {
            shown.push_str(&part);
        }
    }
    Ok(shown)
}
