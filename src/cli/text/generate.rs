use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use mtlora::core::BaseDtype;
use mtlora::models::{
    CausalConfig, CausalLm, CausalText, ChatTemplate, Conversation, GenerationConfig, TextConfig,
};
use mtlora::train::chat::read_chats;
use mtlora::train::data_to_text::GenerationTask;
use mtlora::train::registry;
use mtlora::train::{
    DataSpec, GenerationRun, InputColumns, LoadedGenerator, ModelSpec, Pairs, PromptForm,
    RoutedColumns, Run, RunConfig, WriteError, WriteOptions, Written, load_generators, read_inputs,
    read_routed, write_routed,
};
use serde_json::{Map, Value, json};

use crate::cli::chat::examples::Split;
use crate::cli::chat::{self, VariablesArgs};
use crate::cli::console::output;
use crate::cli::console::progress::Counter;
use crate::cli::hub;
use crate::cli::model::adapted;
use crate::cli::model::adapted::{Generator, Source, TrainedModel};
use crate::cli::model::device;
use crate::cli::model::finished::CheckpointArgs;
use crate::cli::settings::defaults::{self, HelpDefaults};
use crate::cli::settings::task;
use crate::cli::text::decoding::DecodingArgs;
use crate::cli::text::encoding;
use crate::cli::text::several::{self, SeveralArgs};
use crate::cli::text::standard_input::{self, STANDARD_INPUT};

/// The default column of the inputs.
const PROMPT: &str = "prompt";

/// Flags of `mtlora generate`.
#[derive(clap::Args)]
#[command(mut_args(defaults::add_to_help(help_defaults())))]
pub(crate) struct Args {
    /// The run to generate with. Its inputs, one on each line, must have the form of its task; for a run that was trained on
    /// conversations, a line is what a user says.
    #[arg(long, conflicts_with = "adapter", required_unless_present_any = ["model", "adapter"])]
    run: Option<PathBuf>,
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// A causal model: a folder or a name on the Hub. Each line is the beginning of a text, which the model
    /// continues: `input` followed by `text` is the whole text. With --run: the run's base model, if it is no longer where the
    /// run found it.
    #[arg(long)]
    model: Option<PathBuf>,
    /// An adapter for that model: of a run, or LoRA saved by PEFT. With --adapter-column, repeat the flag for each
    /// adapter, with the name that the rows use.
    #[arg(long, value_name = "[NAME=]DIR")]
    adapter: Vec<String>,
    /// With --model or --adapter: the lines are inputs of a data-to-text task, as for a run, and not beginnings of
    /// texts. Use it for folders made by `mtlora merge`.
    #[arg(long, conflicts_with = "run")]
    inputs: bool,
    /// With --model or --adapter: the lines are what a user says to a chat model, and a .jsonl file has conversations, as for
    /// a run that was trained on conversations.
    #[arg(long, conflicts_with_all = ["run", "inputs"])]
    chat: bool,
    #[command(flatten)]
    variables: VariablesArgs,
    /// A file with one input on each line, or a table (.csv, .tsv, .jsonl) [default: lines on standard input].
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// With --run: use the inputs of this split of the run's task.
    #[arg(long, requires = "run", conflicts_with = "input")]
    split: Option<String>,
    #[command(flatten)]
    several: SeveralArgs,
    /// The column of a table with the inputs.
    #[arg(long, requires = "input")]
    prompt_column: Option<String>,
    /// Truncate lines that are too long for the model, on the left.
    #[arg(long)]
    cut_input: bool,
    /// The device [default: the run's, or the first].
    #[arg(long)]
    device: Option<String>,
    #[command(flatten)]
    decoding: DecodingArgs,
}

/// The defaults that the help shows.
fn help_defaults() -> HelpDefaults {
    let column = format!("the run's, or {PROMPT}; with --adapter-column: {PROMPT}");
    vec![("prompt_column", column)]
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    if let Some(column) = args.several.adapter_column.clone() {
        return several(args, &column, json);
    }
    let adapter = several::only(&args.adapter)?;
    // Without a run, the adapter has no decoding settings, and those in the model's folder are used.
    let trained = args.run.is_some() || adapter.is_some();
    let (lines, parts, usual, device) = match &args.model {
        model if trained => {
            let name = args.device.as_deref();
            let source = Source {
                run: args.run.clone(),
                checkpoint: args.checkpoint,
                adapter,
                model: model.clone(),
            };
            let trained = adapted::source(source, name)?.generator()?;
            let device = device::open(args.device.as_deref().unwrap_or(&trained.device))?;
            let Generator {
                spec,
                decoding,
                run,
                chat,
            } = trained.model;
            if args.chat || chat.is_some() {
                let chats = args.chats(chat.as_ref())?;
                let base = spec.base.model.clone();
                let parts = spec.load(&trained.folder, &device)?;
                let from_run = chat.is_some() && args.run.is_some();
                let decoding = match from_run {
                    true => decoding,
                    false => chat::decoding(&base, &parts.config, &parts.text)?,
                };
                let lines = chats.rendered(&base, &parts, &args.variables.variables())?;
                (lines, parts, decoding, device)
            } else {
                let lines = match &args.split {
                    Some(split) => Lines::of(inputs(run.as_ref(), split)?),
                    None => args.lines(run_task(run.as_ref())?.as_deref())?,
                };
                let parts = spec.load(&trained.folder, &device)?;
                (lines, parts, decoding, device)
            }
        }
        Some(folder) => {
            let device = device::open(&device::name_or_default(args.device.as_deref())?)?;
            let folder = &hub::model(folder, None, |folder| {
                drop(CausalConfig::from_folder(folder)?);
                Ok(())
            })?;
            let config = CausalConfig::from_folder(folder)?;
            let parts = LoadedGenerator {
                model: CausalLm::from_folder_in(BaseDtype::Packed, folder, &config, &device)?,
                text: CausalText::from_folder(folder, &config)?,
                config,
            };
            if args.chat {
                let lines =
                    args.chats(None)?
                        .rendered(folder, &parts, &args.variables.variables())?;
                let usual = chat::decoding(folder, &parts.config, &parts.text)?;
                (lines, parts, usual, device)
            } else {
                let usual = GenerationConfig::from_folder(folder, parts.config.vocab_size())?;
                (args.lines(None)?, parts, usual, device)
            }
        }
        None => return Err("--run or --model is needed".into()),
    };
    if args.variables.is_given() && lines.shown.is_none() {
        return Err("--chat-template-kwargs is for conversations (--chat)".into());
    }
    let options = WriteOptions {
        decoding: args.decoding.over(usual),
        form: if lines.shown.is_some() {
            PromptForm::Conversation
        } else if args.run.is_some() || args.inputs {
            PromptForm::Input
        } else {
            PromptForm::Beginning
        },
        cut: args.cut_input,
    };
    let prompts: Vec<&str> = lines.texts.iter().map(String::as_str).collect();
    let mut counter = Counter::new("texts", prompts.len());
    let written = parts
        .write(&prompts, &options, &device, &mut |done| counter.show(done))
        .map_err(|error| match &args.split {
            // The inputs of a split have no line numbers.
            Some(_) => error.into(),
            None => {
                let name = args.input.as_ref().map(|path| path.display().to_string());
                let name = name.as_deref().unwrap_or("standard input");
                located(error, |number| {
                    format!("{name}:{}", encoding::line_of(&lines.numbers, number))
                })
            }
        })?;
    let mut out = output::stdout();
    let shown = lines.shown.as_ref().unwrap_or(&lines.texts);
    for (prompt, one) in shown.iter().zip(&written) {
        writeln!(out, "{}", output::json_text(&json_row(prompt, None, one))?)?;
    }
    drop(out);
    if json {
        output::json(&json!({ "texts": written.len() }))?;
    }
    Ok(())
}

/// Generates a text for each row of a table with the adapter that the row names.
fn several(args: Args, column: &str, json: bool) -> Result<(), Box<dyn Error>> {
    let wanted = args.device.as_deref();
    let adapters = several::open(
        &args.adapter,
        args.model.as_deref(),
        wanted,
        TrainedModel::generator,
    )?;
    if args.chat || adapters.iter().any(|one| one.trained.model.chat.is_some()) {
        return Err("--adapter-column is not for conversations: answer them with one adapter at a time (--run)".into());
    }
    let columns = RoutedColumns {
        adapter: column,
        text: args.prompt_column.as_deref().unwrap_or(PROMPT),
        pair: None,
    };
    let names: Vec<&str> = adapters.iter().map(|one| one.name.as_str()).collect();
    let table = several::table(args.input.as_deref())?;
    let mut rows = read_routed(table, columns, &names)?;
    let tasks = adapters
        .iter()
        .map(|one| run_task(one.trained.model.run.as_ref()));
    let tasks: Vec<Option<Box<dyn GenerationTask>>> = tasks.collect::<Result<_, _>>()?;
    for row in &mut rows {
        if let Some(Some(task)) = tasks.get(row.adapter) {
            row.text = task.input(table, row.line, &row.text)?;
        }
    }
    let device = device::open(wanted.unwrap_or(&adapters[0].trained.device))?;
    let options = adapters.iter().map(|one| WriteOptions {
        decoding: args
            .decoding
            .clone()
            .over(one.trained.model.decoding.clone()),
        form: if args.inputs || Run::is_in(&one.trained.folder) {
            PromptForm::Input
        } else {
            PromptForm::Beginning
        },
        cut: args.cut_input,
    });
    let specs = adapters
        .iter()
        .map(|one| one.adapter(|model| model.spec.clone()));
    let specs: Vec<_> = specs.collect();
    let models: Vec<(LoadedGenerator, WriteOptions)> = load_generators(&specs, &device)
        .map_err(|error| several::load_error(error, &specs))?
        .into_iter()
        .zip(options)
        .collect();
    let mut counter = Counter::new("texts", rows.len());
    let written =
        write_routed(&models, &rows, &device, &mut |done| counter.show(done)).map_err(|error| {
            located(error, |number| {
                let row = number.checked_sub(1).and_then(|at| rows.get(at));
                format!("{}:{}", table.display(), row.map_or(number, |row| row.line))
            })
        })?;
    let mut out = output::stdout();
    for (row, one) in rows.iter().zip(&written) {
        let name = Some(names[row.adapter]);
        writeln!(
            out,
            "{}",
            output::json_text(&json_row(&row.text, name, one))?
        )?;
    }
    drop(out);
    if json {
        output::json(&json!({ "adapters": names, "texts": written.len() }))?;
    }
    Ok(())
}

/// Adds the place to an error about one of the inputs.
fn located(error: WriteError, place: impl Fn(usize) -> String) -> Box<dyn Error> {
    match (error.input(), error) {
        (Some(number), WriteError::Input { source, .. }) => {
            format!("{}: {source}", place(number)).into()
        }
        (Some(number), error) => format!("{}: {error}", place(number)).into(),
        (None, error) => error.into(),
    }
}

fn json_row(input: &str, adapter: Option<&str>, one: &Written) -> Value {
    let mut row = json!({ "input": input });
    if let Some(adapter) = adapter {
        row["adapter"] = json!(adapter);
    }
    row["text"] = json!(one.text);
    row["score"] = json!(one.score);
    row["ended"] = json!(one.ended);
    row
}

/// The inputs of a split of the run's task.
fn inputs(
    run: Option<&RunConfig<GenerationRun>>,
    split: &str,
) -> Result<Vec<String>, Box<dyn Error>> {
    let run = run.ok_or("--split is only for runs, because an adapter alone has no task")?;
    let task = run_task(Some(run))?
        .ok_or_else(|| format!("the task {} of the run is unknown", run.data.task))?;
    let records = task::read_records(task.as_ref(), &run.data.folder, split)?;
    Ok(records.into_iter().map(|record| record.input).collect())
}

/// The prompts with their line numbers.
#[derive(Default)]
struct Lines {
    texts: Vec<String>,
    /// The line of each prompt in the input, counted from 1.
    numbers: Vec<usize>,
    /// For conversations: what is asked last, which the output repeats.
    shown: Option<Vec<String>>,
}

impl Lines {
    fn of(texts: Vec<String>) -> Self {
        let numbers = (1..=texts.len()).collect();
        Self {
            texts,
            numbers,
            shown: None,
        }
    }
}

/// Conversations with their line numbers, each of which the assistant is to answer.
struct Chats {
    name: PathBuf,
    numbered: Vec<(usize, Conversation)>,
}

impl Chats {
    /// The conversations as the model in `folder` reads them.
    fn rendered(
        self,
        folder: &Path,
        parts: &LoadedGenerator,
        variables: &Map<String, Value>,
    ) -> Result<Lines, Box<dyn Error>> {
        let template = ChatTemplate::from_folder(folder, &parts.text)?;
        let mut lines = Lines::default();
        let mut asked = Vec::new();
        for (number, mut conversation) in self.numbered {
            conversation.variables.extend(variables.clone());
            let rendered = template.render(&conversation, true);
            let rendered =
                rendered.map_err(|error| format!("{}:{number}: {error}", self.name.display()))?;
            let last = conversation.messages.last();
            let content = last.and_then(|message| message.get("content")?.as_str());
            lines.texts.push(rendered);
            lines.numbers.push(number);
            asked.push(content.unwrap_or_default().to_string());
        }
        lines.shown = Some(asked);
        Ok(lines)
    }
}

/// The task of a run; `None` without a run or if the task is unknown.
fn run_task(
    run: Option<&RunConfig<GenerationRun>>,
) -> Result<Option<Box<dyn GenerationTask>>, Box<dyn Error>> {
    let Some(run) = run else {
        return Ok(None);
    };
    Ok(registry::open_generation(
        &run.data.task,
        run.kind.pairs.clone(),
    )?)
}

impl Args {
    /// Reads the conversations that are to be answered.
    fn chats(&self, run: Option<&DataSpec>) -> Result<Chats, Box<dyn Error>> {
        if self.prompt_column.is_some() {
            return Err("--prompt-column is not for conversations: a .jsonl file has them in one of the common forms".into());
        }
        let stdin = PathBuf::from(STANDARD_INPUT);
        let name = self.input.as_ref().unwrap_or(&stdin);
        let examples = match (&self.split, &self.input, run) {
            (Some(split), _, Some(data)) => Split::read(&data.folder, split)?.examples,
            (Some(_), ..) => {
                return Err(
                    "--split is only for runs, because an adapter alone has no task".into(),
                );
            }
            (None, Some(path), _)
                if path
                    .extension()
                    .is_some_and(|one| one.eq_ignore_ascii_case("jsonl")) =>
            {
                read_chats(path)?
            }
            _ => {
                let lines = self.lines(None)?;
                let of_user = lines.texts.iter().map(|text| Conversation::of_user(text));
                let numbered = lines.numbers.iter().copied().zip(of_user);
                return Ok(Chats {
                    name: name.clone(),
                    numbered: numbered.collect(),
                });
            }
        };
        let numbered = examples.iter().map(|example| {
            let place = format!("{}:{}", name.display(), example.line);
            let conversation = example.conversation().ok_or_else(|| {
                format!(
                    "{place}: plain text is not a conversation: leave out --chat to continue it"
                )
            })?;
            let is_answered = conversation.messages.len().checked_sub(1);
            let is_answered = is_answered.is_some_and(|last| conversation.is_of_assistant(last));
            let conversation = if is_answered {
                conversation.prompt()
            } else {
                conversation.clone()
            };
            Ok((example.line, conversation))
        });
        let numbered = numbered.collect::<Result<Vec<_>, String>>()?;
        Ok(Chats {
            name: name.clone(),
            numbered,
        })
    }

    /// Reads the prompts, and converts them to the input form of `task` if it is known.
    fn lines(&self, task: Option<&dyn GenerationTask>) -> Result<Lines, Box<dyn Error>> {
        let of_task = task.map(GenerationTask::input_column);
        let column = self.prompt_column.as_deref().or(of_task).unwrap_or(PROMPT);
        let columns = InputColumns {
            text: column,
            pairs: Pairs::Never,
        };
        let stdin = PathBuf::from(STANDARD_INPUT);
        let name = self.input.as_ref().unwrap_or(&stdin);
        let inputs = match &self.input {
            Some(path) => read_inputs(path, &columns)?,
            None => standard_input::lines(columns.pairs)?,
        };
        if inputs.is_empty() {
            return Err(format!("{}: there are no lines", name.display()).into());
        }
        let mut lines = Lines::default();
        for input in inputs {
            // A text may begin with white space.
            let is_beginning = task.is_none() && !self.inputs;
            let is_empty = if is_beginning {
                input.text.is_empty()
            } else {
                input.text.trim().is_empty()
            };
            if is_empty {
                let place = format!("{}:{}", name.display(), input.line);
                return Err(format!("{place}: the line is empty; remove it").into());
            }
            lines.numbers.push(input.line);
            lines.texts.push(match task {
                Some(task) => task.input(name, input.line, &input.text)?,
                None => input.text,
            });
        }
        Ok(lines)
    }
}
