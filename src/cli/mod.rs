//! The command line: one file a subcommand.

mod decoding;
mod devices;
mod eval;
mod eval_generation;
mod generate;
#[cfg(feature = "hub")]
mod hub;
#[cfg(not(feature = "hub"))]
#[path = "no_hub.rs"]
mod hub;
mod merge;
mod output;
mod predict;
mod pretrain;
mod pretrain_causal;
mod progress;
mod recipe;
mod recipes;
mod score;
mod settings;
mod task;
mod tasks;
mod train;
mod train_generation;
#[cfg(feature = "hub")]
mod transfers;

use std::error::Error;

use clap::{Parser, Subcommand};

/// Fine-tune language models with MTLoRA, on any GPU or a CPU, without Python.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// End standard output with one JSON object on a line of its own.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Fine-tune a model on a task.
    Train(Box<train::Args>),
    /// Score a run, or a model, on a task.
    Eval(eval::Args),
    /// Predict labels or numbers for lines of text.
    Predict(predict::Args),
    /// Write texts: for the inputs of a data-to-text run, or on from the beginnings of texts.
    Generate(Box<generate::Args>),
    /// Fold a run's adapter into its model: a plain Hugging Face folder.
    Merge(merge::Args),
    /// Pre-train a small RoBERTa (masked language modelling) or GPT-2 (causal) on text.
    Pretrain(pretrain::Args),
    /// Score generated text against references.
    Score(score::Args),
    /// List the devices that this build can compute on here.
    Devices,
    /// List the tasks.
    Tasks,
    /// List the recipes: the authors' settings for a model and a task.
    Recipes,
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    match cli.command {
        Command::Train(args) => train::run(*args, cli.json),
        Command::Eval(args) => eval::run(args, cli.json),
        Command::Predict(args) => predict::run(args, cli.json),
        Command::Generate(args) => generate::run(*args, cli.json),
        Command::Merge(args) => merge::run(args, cli.json),
        Command::Pretrain(args) => pretrain::run(args, cli.json),
        Command::Score(args) => score::run(args, cli.json),
        Command::Devices => devices::run(cli.json),
        Command::Tasks => tasks::run(cli.json),
        Command::Recipes => recipes::run(cli.json),
    }
}
