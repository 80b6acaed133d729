use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::models::write_atomically;
use mtlora::train::RunError;
use mtlora::train::report::{Report, ReportError, RunReport, comparison_page};
use serde_json::{Value, json};

use crate::cli::compare::gather;
use crate::cli::console::output;
use crate::cli::sweep::store::{FILE, Store};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folders of the runs, finished or not; or the folder of a sweep.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write; an existing file is replaced.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    if let Some(sweep) = args.runs.iter().find(|folder| folder.join(FILE).exists()) {
        if args.runs.len() > 1 {
            return Err(format!(
                "{}: this is a sweep, which has a page of its own: name it alone",
                sweep.display()
            )
            .into());
        }
        return of_sweep(sweep, &args.out, json);
    }
    let (folders, report) = readable(&args.runs)?;
    report.write(&args.out)?;
    say!("the report is in {}", args.out.display())?;
    if json {
        let results: Vec<Value> = folders.into_iter().zip(&report.runs).map(summary).collect();
        output::json(&json!({
            "out": args.out,
            "runs": report.runs.len(),
            "results": results,
        }))?;
    }
    Ok(())
}

/// The runs that can be read, with their folders. A run with a damaged file is reported; a folder that is not a run is a mistake
/// of the command.
fn readable(folders: &[PathBuf]) -> Result<(Vec<&PathBuf>, Report), Box<dyn Error>> {
    let mut runs = Vec::new();
    let mut damaged = Vec::new();
    for folder in folders {
        match RunReport::open(folder) {
            Ok(run) => runs.push((folder, run)),
            Err(ReportError::Run(error)) if matches!(*error, RunError::NotARun { .. }) => {
                return Err(error);
            }
            Err(error) => damaged.push(error),
        }
    }
    if runs.is_empty() {
        let all: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        return Err(all.join("\n").into());
    }
    for error in &damaged {
        note!("{error}");
    }
    let folders = runs.iter().map(|(folder, _)| *folder).collect();
    Ok((folders, Report::of_runs(runs)))
}

/// Writes the page about a sweep.
fn of_sweep(folder: &Path, out: &Path, json: bool) -> Result<(), Box<dyn Error>> {
    let (store, plan) = Store::open(folder)?;
    let outcomes = store.ended(&plan)?;
    let comparison = gather::comparison(&plan, &outcomes, None)?;
    write_atomically(out, comparison_page(&comparison).as_bytes())?;
    say!("the report is in {}", out.display())?;
    if json {
        output::json(&json!({ "out": out, "runs": outcomes.len(), "comparison": comparison }))?;
    }
    Ok(())
}

/// What comparisons of runs need: which run it is, and its metrics, which are `null` while it is unfinished.
fn summary((folder, run): (&PathBuf, &RunReport)) -> Value {
    let setting = |table: &str, name: &str| run.settings.get(table)?.get(name);
    let results = run.results.as_ref();
    json!({
        "run": folder,
        "task": setting("data", "task"),
        "seed": setting("training", "seed"),
        "metrics": results.map(|results| &results.metrics),
        "best_step": results.map(|results| results.best_step),
    })
}
