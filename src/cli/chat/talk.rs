//! `mtlora chat`: a conversation in the terminal, or with lines from a file.

use std::error::Error;
use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use mtlora::core::BaseDtype;
use mtlora::models::{
    CachedDecoder, CausalConfig, CausalLm, CausalText, ChatTemplate, GenerationConfig, TextConfig,
};
use mtlora::train::{LoadedGenerator, ModelSpec};
use serde_json::json;

use crate::cli::chat::session::Session;
use crate::cli::chat::{VariablesArgs, decoding};
use crate::cli::console::output;
use crate::cli::console::signals::Interrupts;
use crate::cli::hub;
use crate::cli::model::adapted::{self, Generator, Source};
use crate::cli::model::device;
use crate::cli::model::finished::CheckpointArgs;
use crate::cli::text::decoding::DecodingArgs;

const HELP: &str = "/reset forgets the conversation, /system TEXT begins anew with another system message, /quit ends. Ctrl-C \
                    ends an answer. A message that begins with / is written with //.";

/// Talks with a chat model. Each line is a message. Flags of sampling turn sampling on.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run to talk with, which was trained on conversations, or on another task with a model that has a chat template.
    #[arg(long, conflicts_with = "adapter", required_unless_present = "model")]
    run: Option<PathBuf>,
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// A chat model: a folder or a name on the Hub. With --run: the run's base model, if it is no longer where the run found
    /// it.
    #[arg(long)]
    model: Option<PathBuf>,
    /// An adapter for that model: of a run, or LoRA saved by PEFT.
    #[arg(long, value_name = "DIR", requires = "model")]
    adapter: Option<PathBuf>,
    /// The system message that the conversation begins with.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The device [default: the run's, or the first].
    #[arg(long)]
    device: Option<String>,
    #[command(flatten)]
    variables: VariablesArgs,
    #[command(flatten)]
    decoding: DecodingArgs,
}

/// The model, and how it answers.
struct Model {
    folder: PathBuf,
    parts: LoadedGenerator,
    decoding: GenerationConfig,
    device: burn::tensor::Device,
}

impl Args {
    fn model(&self) -> Result<Model, Box<dyn Error>> {
        let wanted = self.device.as_deref();
        if self.run.is_none() && self.adapter.is_none() {
            let Some(given) = &self.model else {
                return Err("--run or --model is needed".into());
            };
            let device = device::open(&device::name_or_default(wanted)?)?;
            let folder = hub::model(given, None, |folder| {
                drop(CausalConfig::from_folder(folder)?);
                Ok(())
            })?;
            let config = CausalConfig::from_folder(&folder)?;
            let parts = LoadedGenerator {
                model: CausalLm::from_folder_in(BaseDtype::Packed, &folder, &config, &device)?,
                text: CausalText::from_folder(&folder, &config)?,
                config,
            };
            return Ok(Model {
                decoding: decoding(&folder, &parts.config, &parts.text)?,
                folder,
                parts,
                device,
            });
        }
        let source = Source {
            run: self.run.clone(),
            checkpoint: self.checkpoint,
            adapter: self.adapter.clone(),
            model: self.model.clone(),
        };
        let trained = adapted::source(source, wanted)?.generator()?;
        let device = device::open(wanted.unwrap_or(&trained.device))?;
        let Generator {
            spec,
            decoding: of_run,
            chat,
            ..
        } = trained.model;
        let parts = spec.load(&trained.folder, &device)?;
        let folder = spec.base.model;
        let is_run_of_chat = chat.is_some() && self.run.is_some();
        let decoding = match is_run_of_chat {
            true => of_run,
            false => decoding(&folder, &parts.config, &parts.text)?,
        };
        Ok(Model {
            folder,
            parts,
            decoding,
            device,
        })
    }
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let model = args.model()?;
    let parts = &model.parts;
    let template = ChatTemplate::from_folder(&model.folder, &parts.text)?;
    let decoding = args.decoding.sampling_over(model.decoding);
    decoding.validate()?;
    let decoder = CachedDecoder::new(&parts.model, &parts.config, &model.device);
    let most = parts.config.max_tokens();
    let mut session = Session::new(&parts.text, template, decoding, decoder, most);
    session.set_variables(args.variables.variables());
    session.set_system(args.system.as_deref().unwrap_or_default());

    let is_terminal = io::stdin().is_terminal();
    if is_terminal {
        note!("{HELP}");
    }
    let interrupts = Interrupts::listen()?;
    let (mut turns, mut tokens) = (0, 0);
    loop {
        if is_terminal {
            let mut out = output::stdout();
            write!(out, "> ")?;
            out.flush()?;
        }
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        if read.map_err(|error| format!("standard input: {error}"))? == 0 {
            break;
        }
        let line = line.trim_end_matches(['\n', '\r']);
        let message = match line.strip_prefix('/') {
            _ if line.trim().is_empty() => continue,
            None => line,
            Some(escaped) if escaped.starts_with('/') => escaped,
            Some(command) => match obey(&mut session, command) {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(()) => break,
            },
        };
        let answering = interrupts.record();
        let mut failed = None;
        let answer = session.say(message, &mut |piece| match write_piece(piece) {
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
            Ok(()) if answering.heard() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
        });
        let was_ended = answering.heard();
        drop(answering);
        if let Some(error) = failed {
            return Err(error.into());
        }
        say!("")?;
        match answer {
            Ok(answer) => {
                turns += 1;
                tokens += answer.tokens;
                if answer.forgotten > 0 {
                    note!(
                        "the {} oldest messages are forgotten: the model reads {most} tokens at most",
                        answer.forgotten
                    );
                }
                if was_ended {
                    note!("the answer was ended");
                } else if !answer.ended {
                    note!("the answer ends here because of its length (--max-new-tokens)");
                }
            }
            // With lines from a file, nobody is there who could say it in another way.
            Err(error) if !is_terminal => return Err(error),
            Err(error) => note!("{error}"),
        }
    }
    if json {
        output::json(&json!({
            "turns": turns,
            "new_tokens": tokens,
            "messages": session.conversation().messages,
        }))?;
    }
    Ok(())
}

/// Does what a line that begins with / asks for. `Break` ends the conversation.
fn obey(session: &mut Session<'_>, command: &str) -> ControlFlow<()> {
    let (name, rest) = command
        .split_once(char::is_whitespace)
        .unwrap_or((command, ""));
    match name {
        "reset" => {
            session.reset();
            note!("the conversation is forgotten");
        }
        "system" => {
            session.set_system(rest.trim());
            note!("the conversation begins anew with this system message");
        }
        "quit" | "exit" => return ControlFlow::Break(()),
        _ => note!("{HELP}"),
    }
    ControlFlow::Continue(())
}

/// Shows a piece of an answer at once. Characters that control the terminal are escaped.
fn write_piece(piece: &str) -> io::Result<()> {
    let mut out = output::stdout();
    out.write_all(output::printable_lines(piece).as_bytes())?;
    out.flush()
}
