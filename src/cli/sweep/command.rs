//! The subcommands of `mtlora sweep` and their flags.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use serde_json::json;

use crate::cli::console::output;
use crate::cli::sweep::file::SweepFile;
use crate::cli::sweep::plan::Plan;
use crate::cli::sweep::shard::Shard;
use crate::cli::sweep::store::Store;
use crate::cli::sweep::work::{self, Work};
use crate::cli::sweep::{check, jobs, status};
use crate::cli::thread_count;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: SweepCommand,
}

#[derive(clap::Subcommand)]
enum SweepCommand {
    /// Make all runs of a sweep that are not made yet. Any number of processes, also on other machines that share the
    /// folder, can do this at the same time, and a process that was stopped can be started again.
    Run(RunArgs),
    /// Print a command for each run of a sweep, for GNU parallel and other programs that start commands.
    Commands(FileArgs),
    /// Show how far a sweep is.
    Status(StatusArgs),
}

#[derive(clap::Args)]
pub(super) struct FileArgs {
    /// The TOML file that describes the sweep.
    pub(super) file: PathBuf,
    /// The folder of the sweep.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
}

#[derive(clap::Args)]
struct RunArgs {
    #[command(flatten)]
    place: FileArgs,
    #[command(flatten)]
    share: ShareArgs,
    /// Make only this run, and those that it needs (see `mtlora sweep commands`).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["shard", "jobs"])]
    cell: Option<String>,
    /// Started by another process, which has checked the models and the data.
    #[arg(long, hide = true)]
    worker: bool,
}

/// How processes share the runs of a sweep.
#[derive(clap::Args)]
pub(super) struct ShareArgs {
    /// Number of runs at a time, each in a process of its own. Without threads in the file, and without --threads, the
    /// cores are divided among them.
    #[arg(long, value_name = "N", default_value = "1", value_parser = thread_count)]
    jobs: NonZeroUsize,
    /// Begin with part I of N, counted from 0, and then help with the others; with --jobs, the processes divide this part
    /// [default: what SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX says, or the beginning].
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// End as soon as there is no run that this process could begin, instead of waiting for the runs of others.
    #[arg(long)]
    no_wait: bool,
}

#[derive(clap::Args)]
struct StatusArgs {
    /// The folder of the sweep.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Args {
    /// The number of threads of this process. `asked` is what the user asked for.
    ///
    /// # Errors
    /// If the sweep's file cannot be read, or asks for another number.
    pub(crate) fn threads(
        &self,
        asked: Option<NonZeroUsize>,
    ) -> Result<Option<NonZeroUsize>, String> {
        let SweepCommand::Run(args) = &self.command else {
            return Ok(asked);
        };
        let path = &args.place.file;
        match (SweepFile::read(path)?.threads, asked) {
            // The results of runs with other numbers of threads differ in the last digits.
            (Some(own), Some(asked)) if own != asked => Err(format!(
                "{}: each run of this sweep has threads = {own}, so it cannot have --threads {asked}: leave the flag out, or \
                 change the file",
                path.display()
            )),
            (own, asked) => Ok(asked.or(own)),
        }
    }
}

pub(crate) fn run(
    args: Args,
    threads: Option<NonZeroUsize>,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    match args.command {
        SweepCommand::Run(args) => run_sweep(&args, threads, json),
        SweepCommand::Commands(args) => commands(&args, json),
        SweepCommand::Status(args) => status::run(&args.folder, json),
    }
}

fn run_sweep(
    args: &RunArgs,
    threads: Option<NonZeroUsize>,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let FileArgs { file, out } = &args.place;
    let plan = Plan::new(SweepFile::read(file)?);
    let cells = match &args.cell {
        Some(name) => {
            let index = plan.find(name).ok_or_else(|| {
                format!(
                    "--cell: the sweep has no run {name} (mtlora sweep commands {} --out {} lists them)",
                    file.display(),
                    out.display()
                )
            })?;
            Some(plan.with_needed(index))
        }
        None => None,
    };
    if args.worker {
        jobs::stop_with_parent();
    } else {
        check::check(&plan)?;
        for note in plan.file.notes() {
            note!("{note}");
        }
    }
    let store = Store::create(out, &plan)?;
    make(&plan, &store, &args.place, &args.share, threads, cells)?;
    if args.worker {
        return Ok(());
    }
    status::run(out, json)
}

/// Makes the runs of a sweep, or only those in `cells`.
///
/// # Errors
/// If a run fails, or the process is asked to stop.
pub(super) fn make(
    plan: &Plan,
    store: &Store,
    place: &FileArgs,
    share: &ShareArgs,
    threads: Option<NonZeroUsize>,
    cells: Option<Vec<usize>>,
) -> Result<(), Box<dyn Error>> {
    let shard = match share.shard {
        Some(shard) => Some(shard),
        None => Shard::of_environment()?,
    };
    let shard = shard.unwrap_or(Shard::of(0, 1));
    let FileArgs { file, out } = place;
    let count = share.jobs.get();
    if count > 1 {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let each = threads.map_or((cores / count).max(1), NonZeroUsize::get);
        let text = |path: &PathBuf| {
            let text = path.to_str().map(str::to_string);
            text.ok_or_else(|| format!("{}: the name is not valid UTF-8", path.display()))
        };
        let (file, out) = (text(file)?, text(out)?);
        jobs::run(count, |job| {
            let mut arguments = ["sweep", "run", &file, "--out", &out, "--worker"]
                .map(str::to_string)
                .to_vec();
            arguments.extend(["--threads".to_string(), each.to_string()]);
            let all = plan.cells.len();
            let first = shard.part(job, count).first(all);
            arguments.extend(["--shard".to_string(), format!("{first}/{}", all.max(1))]);
            arguments.extend(share.no_wait.then(|| "--no-wait".to_string()));
            arguments
        })?;
    } else {
        let wait = !share.no_wait;
        let order = cells.unwrap_or_else(|| shard.order(plan.cells.len()));
        work::work(plan, store, &Work { order, wait })?;
    }
    Ok(())
}

fn commands(args: &FileArgs, json: bool) -> Result<(), Box<dyn Error>> {
    let plan = Plan::new(SweepFile::read(&args.file)?);
    let command = |name: &str| {
        format!(
            "mtlora sweep run {} --out {} --cell {}",
            quoted(&args.file.to_string_lossy()),
            quoted(&args.out.to_string_lossy()),
            quoted(name)
        )
    };
    for cell in &plan.cells {
        say!("{}", command(&cell.name))?;
    }
    if json {
        let cells: Vec<&str> = plan.cells.iter().map(|cell| cell.name.as_str()).collect();
        output::json(&json!({ "cells": cells }))?;
    }
    Ok(())
}

/// A word of a shell's command.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_+./=,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        assert_eq!(quoted("a/lr=1e-3,b=2/seed-1"), "a/lr=1e-3,b=2/seed-1");
        assert_eq!(quoted("my file"), "'my file'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
