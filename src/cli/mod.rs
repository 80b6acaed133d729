//! The command line, with one file for each subcommand, in a folder for each group of them.

// This module comes first, because its macros are used by the others.
#[macro_use]
mod console;

mod adapters;
mod bench;
mod chat;
mod compare;
mod config;
mod convert;
mod eval;
#[cfg(test)]
mod flags_page;
mod hub;
mod lists;
mod model;
mod pretrain;
mod ranks;
mod report;
mod settings;
mod shell;
mod sweep;
mod text;
mod train;

use std::error::Error;
use std::num::NonZeroUsize;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use mtlora::core::{Autotune, CpuChoice, MatmulPrecision};

#[cfg(feature = "hub")]
use adapters::push;
use adapters::{combine, export, import, inspect, merge};
use chat::{show, talk};
#[cfg(feature = "hub")]
use console::signals::StoppedBy;
use console::{output, progress};
use lists::{devices, recipes, tasks};
use model::device;
use settings::{check, elsewhere};
use shell::{completions, man};
use text::{generate, predict, score};

/// Fine-tune language models with MTLoRA, on a CPU or a GPU, without Python.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// End standard output with one JSON object on a line of its own.
    #[arg(long, global = true)]
    json: bool,
    /// Number of threads for computations on a CPU [default: one for each core]. The same number of threads
    /// always gives the same results.
    #[arg(long, global = true, value_name = "N", value_parser = thread_count)]
    threads: Option<NonZeroUsize>,
    /// How exactly a processor with AMX multiplies 32-bit floats: highest (with all their digits), high (with 16 of 24
    /// bits), medium (as bfloat16). Others always keep all digits.
    #[arg(long, global = true, value_name = "PRECISION", default_value_t)]
    matmul_precision: MatmulPrecision,
    /// How many kernels a GPU tries for an operation of a new shape before it chooses one; with `off`, one kernel computes
    /// the matrix products of all shapes [default: off on software drivers, else balanced].
    #[arg(long, global = true, value_name = "LEVEL", value_parser = device::parse_autotune)]
    autotune: Option<Autotune>,
}

/// The largest number of threads, which is above that of any processor. Starting more of them can take minutes.
const MOST_THREADS: usize = 4096;

/// Parses a number of threads.
fn thread_count(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(count) if count.get() > MOST_THREADS => {
            Err(format!("it must be at most {MOST_THREADS}"))
        }
        Ok(count) => Ok(count),
        Err(_) => Err("it must be a whole number, 1 or more".to_string()),
    }
}

#[derive(Subcommand)]
enum Command {
    /// Fine-tune a model on a task.
    Train(Box<train::Args>),
    /// Score a run or a model on a task.
    Eval(eval::Args),
    /// Predict labels or numbers for texts.
    Predict(predict::Args),
    /// Generate texts: for the inputs of a data-to-text run, or as continuations of given beginnings.
    Generate(Box<generate::Args>),
    /// Talk with a chat model.
    Chat(Box<talk::Args>),
    /// Show conversations as the model sees them, with the tokens that are learned.
    Data(show::Args),
    /// Write an HTML page that compares runs: curves, settings and final metrics.
    Report(report::Args),
    /// Compare methods on tasks: a run for each arm, task, seed and choice of settings, made by any number of processes.
    Sweep(sweep::Args),
    /// Print a sweep's results as a table: means, intervals, differences from a baseline, and what can be concluded.
    Table(compare::Args),
    /// Make the runs of the paper's tables, as sweeps.
    Reproduce(sweep::ReproduceArgs),
    /// Merge a run's adapter into its model and write a plain Hugging Face folder.
    Merge(merge::Args),
    /// Write a run's adapter as plain LoRA, for PEFT and other programs that read its format.
    ///
    /// The update of a weight is scale * B T A, but PEFT supports only scale * B A. T is therefore folded into A and B,
    /// which does not change the model's outputs. An adapter of rank r on g projections that are fused in one weight
    /// becomes one LoRA of rank g r with g times the alpha. With --for, the scale is folded into B as well, so that no program
    /// can read it wrongly.
    Export(export::Args),
    /// Send a run's adapter, or its merged model, to the Hugging Face Hub, with a model card.
    ///
    /// The files are those that export writes, or merge with --merged: they are made in a temporary folder, listed, and sent in
    /// one commit, and nothing else is sent. If the connection breaks off, the same command sends what is missing. The token is
    /// the one that downloads use (HF_TOKEN, or the file that Python's `hf auth login` writes), and must be allowed to write.
    #[cfg(feature = "hub")]
    Push(Box<push::Args>),
    /// Make a run from an adapter that PEFT or another run saved.
    Import(Box<import::Args>),
    /// Write the model of a GGUF file as a Hugging Face folder, which the other commands take.
    Convert(convert::Args),
    /// Show what an adapter has learned: the size of its updates, their effective rank, and the distance of T
    /// from LoRA.
    Inspect(inspect::Args),
    /// Add adapters, exactly or at a given rank with a reported error.
    Combine(combine::Args),
    /// Pre-train a small RoBERTa (masked language modelling) or GPT-2 (causal) on text.
    Pretrain(pretrain::Args),
    /// Score generated text against references.
    Score(score::Args),
    /// Measure the speed of training and generation on this machine.
    Bench(bench::Args),
    /// List the devices that this build can use on this machine, and what they can do.
    Devices(devices::Args),
    /// List the tasks.
    Tasks,
    /// List the recipes (settings for a model and a task, mostly the authors'), or print one.
    Recipes(recipes::Args),
    /// Check the TOML files that `train --config` and `sweep` read, or print their JSON schemas for an editor.
    Config(config::Args),
    /// Print a script with which a shell completes the program's subcommands and options.
    Completions(completions::Args),
    /// Write manual pages, one for each subcommand.
    Man(man::Args),
}

/// Parses the command line and runs the subcommand.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let mut cli = Cli::try_parse().unwrap_or_else(|error| {
        let error = with_our_name(error, std::env::args_os());
        ranks::leave_it_to_first(error.exit_code());
        error.exit()
    });
    CpuChoice::read()?;
    // Burn's CPU backend, its matrix products, our kernels and the tokenizers all use this pool. The main thread
    // belongs to it: otherwise each operation would wake another thread and put this one to sleep.
    let threads = match &mut cli.command {
        Command::Train(args) => {
            let kept = args.keep_threads(cli.threads);
            kept.inspect_err(|_| ranks::leave_it_to_first(2))?
        }
        Command::Sweep(args) => args.threads(cli.threads)?,
        _ => cli.threads,
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.map_or(0, NonZeroUsize::get))
        .use_current_thread()
        .build_global()?;
    device::set_autotune(cli.autotune);
    cli.matmul_precision.choose();
    match cli.command {
        Command::Train(args) => train::run(*args, cli.json),
        Command::Eval(args) => eval::run(args, cli.json),
        Command::Predict(args) => predict::run(args, cli.json),
        Command::Generate(args) => generate::run(*args, cli.json),
        Command::Chat(args) => talk::run(*args, cli.json),
        Command::Data(args) => show::run(args, cli.json),
        Command::Merge(args) => merge::run(args, cli.json),
        Command::Report(args) => report::run(args, cli.json),
        Command::Sweep(args) => sweep::run(args, threads, cli.json),
        Command::Table(args) => compare::run(args, cli.json),
        Command::Reproduce(args) => sweep::reproduce(&args, threads, cli.json),
        Command::Export(args) => export::run(args, cli.json),
        #[cfg(feature = "hub")]
        Command::Push(args) => push::run(*args, cli.json),
        Command::Import(args) => import::run(*args, cli.json),
        Command::Convert(args) => convert::run(&args, cli.json),
        Command::Inspect(args) => inspect::run(args, cli.json),
        Command::Combine(args) => combine::run(args, cli.json),
        Command::Pretrain(args) => pretrain::run(args, cli.json),
        Command::Score(args) => score::run(args, cli.json),
        Command::Bench(args) => bench::run(args, cli.json),
        Command::Devices(args) => devices::run(&args, cli.json),
        Command::Tasks => tasks::run(cli.json),
        Command::Recipes(args) => recipes::run(args, cli.json),
        Command::Config(args) => config::run(&args, cli.json),
        Command::Completions(args) => completions::run(&args, Cli::command(), cli.json),
        Command::Man(args) => man::run(&args, Cli::command(), cli.json),
    }
}

/// The error about an unknown word with a tip that names the flag which other programs call so, or the one that takes a run.
fn with_our_name(
    mut error: clap::Error,
    words: impl Iterator<Item = std::ffi::OsString>,
) -> clap::Error {
    let words: Vec<std::ffi::OsString> = words.collect();
    let asked = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => flag,
        _ => return error,
    };
    let name = asked.split('=').next().unwrap_or_default();
    let has_run = words
        .iter()
        .any(|word| word.to_string_lossy().starts_with("--run"));
    let ours = match name.strip_prefix("--") {
        Some(theirs) => elsewhere::here(theirs),
        None if !name.starts_with('-') && !has_run => Some("run"),
        None => None,
    };
    // The flag must be one of the subcommand.
    let program = Cli::command();
    let mut command = &program;
    for word in words.iter().skip(1) {
        if let Some(inner) = command.find_subcommand(word) {
            command = inner;
        }
    }
    let ours = ours.map(|ours| ours.replace('_', "-"));
    let is_flag = |ours: &String| {
        let mut flags = command.get_arguments();
        flags.any(|flag| flag.get_long() == Some(ours.as_str()))
    };
    if let Some(ours) = ours.filter(is_flag) {
        let tip = ContextValue::String(format!("--{ours}"));
        error.insert(ContextKind::SuggestedArg, tip);
    }
    // The usage has the flag that clap takes the word for, which is not always that of the tip.
    if error.get(ContextKind::SuggestedArg).is_some() {
        error.remove(ContextKind::Usage);
    }
    error
}

/// The exit code that shells use for a process that wrote to a closed pipe: 128 plus the number of SIGPIPE.
const UNREAD: u8 = 141;

/// Prints the error, unless it means that nobody reads the output. Returns the program's exit code.
pub(crate) fn fail(error: &(dyn Error + 'static)) -> u8 {
    if output::is_unread(error) {
        return UNREAD;
    }
    match check::in_flags(error) {
        Some(said) => note!("mtlora: {said}"),
        None => note!("mtlora: {error}"),
    }
    #[cfg(feature = "hub")]
    if let Some(stopped) = error.downcast_ref::<StoppedBy>() {
        return stopped.signal.exit_code();
    }
    match error.downcast_ref::<progress::Stopped>() {
        Some(stopped) => stopped.exit_code(),
        None => 2,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::settings::defaults;
    use super::*;

    /// The help text of a subcommand's flag.
    fn help(path: &[&str], flag: &str) -> String {
        let mut command = &Cli::command();
        for name in path {
            command = command.find_subcommand(name).unwrap();
        }
        let found = command.get_arguments().find(|one| one.get_id() == flag);
        found.unwrap().get_help().unwrap().to_string()
    }

    #[test]
    fn the_help_shows_the_defaults_in_use() {
        Cli::command().debug_assert();
        for (flag, default) in defaults::of_settings() {
            for command in ["train", "import"] {
                let help = help(&[command], flag);
                let shown = format!(" [default: {default}]");
                assert!(help.ends_with(&shown), "{command} --{flag}: {help}");
                assert_eq!(help.matches("[default").count(), 1, "{help}");
            }
        }
        assert!(
            help(&["train"], "rank")
                .ends_with("[default: 8; data-to-text: 4; chat: 16; adalora: 12]")
        );
        assert!(
            help(&["train"], "lr").ends_with("[default: 4e-4; data-to-text: 2e-4; chat: 1e-3]")
        );
        assert!(help(&["bench", "step"], "seq").ends_with("[default: 128; causal: 256]"));
        assert!(help(&["bench", "epoch"], "rank").ends_with("[default: 8; causal: 4]"));
    }

    #[test]
    fn unknown_flags_of_other_programs_are_answered_with_ours() {
        let said = |words: &[&str]| {
            let words = ["mtlora"].iter().chain(words).map(Into::into);
            let words: Vec<std::ffi::OsString> = words.collect();
            let error = Cli::try_parse_from(&words).err().unwrap();
            with_our_name(error, words.into_iter()).to_string()
        };
        for (theirs, ours) in [
            ("--lora-alpha", "--alpha"),
            ("--lora_alpha", "--alpha"),
            ("--learning_rate", "--lr"),
            ("--num-train-epochs", "--epochs"),
            ("--per_device_train_batch_size", "--batch"),
            ("--target-modules", "--targets"),
            ("--output_dir", "--out"),
            ("--dropout", "--adapter-dropout"),
            ("--bf16", "--base-dtype"),
            ("--load_in_4bit", "--base-dtype"),
            // One that only clap knows a similar one of.
            ("--epoch", "--epochs"),
        ] {
            let text = said(&["train", theirs, "3"]);
            let tip = format!("a similar argument exists: '{ours}'\n");
            assert!(text.contains(&tip), "{theirs}: {text}");
        }
        // A usage with another flag would contradict the tip.
        assert!(!said(&["train", "--lora-r", "3"]).contains("Usage"));
        let text = said(&["eval", "runs/first"]);
        assert!(
            text.contains("a similar argument exists: '--run'"),
            "{text}"
        );
        let text = said(&["predict", "--run", "runs/first", "A fine film."]);
        assert!(
            !text.contains("'--run'") && text.contains("Usage"),
            "{text}"
        );
        // The subcommand has no such flag.
        let text = said(&["merge", "--learning-rate", "3"]);
        assert!(!text.contains("'--lr'") && text.contains("Usage"), "{text}");
        let text = said(&["bench", "step", "--lora-r", "3"]);
        assert!(text.contains("'--rank'"), "{text}");
    }

    #[test]
    fn the_flags_that_a_file_cannot_set_are_known() {
        let program = Cli::command();
        let train = program.find_subcommand("train").unwrap();
        let settings =
            <settings::flags::Settings as clap::Args>::augment_args(clap::Command::new("settings"));
        let is_setting = |name: &str| {
            name == "threads" || settings.get_arguments().any(|flag| flag.get_id() == name)
        };
        let all = train.get_arguments().chain(program.get_arguments());
        let mut others: Vec<&str> = all
            .map(|flag| flag.get_id().as_str())
            .filter(|name| !is_setting(name))
            .collect();
        others.sort_unstable();
        assert_eq!(others, elsewhere::COMMAND_LINE);
    }

    #[test]
    fn the_number_of_threads_has_a_bound() {
        assert_eq!(thread_count("8"), Ok(NonZeroUsize::new(8).unwrap()));
        assert_eq!(
            thread_count("20000").unwrap_err(),
            "it must be at most 4096"
        );
        assert!(thread_count("0").is_err() && thread_count("x").is_err());
    }

    /// A default that is typed into a comment would not follow a change of the constant.
    #[test]
    fn no_default_value_is_typed_into_a_doc_comment() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let comments = text.lines().map(str::trim);
                let docs = comments.filter_map(|line| line.strip_prefix("///"));
                for (_, default) in docs.filter_map(|line| line.split_once("[default: ")) {
                    let is_value = default.contains(|one: char| one.is_ascii_digit());
                    assert!(!is_value, "{}: {default}", path.display());
                }
            }
        }
    }
}
