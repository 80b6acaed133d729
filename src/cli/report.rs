use std::error::Error;
use std::path::PathBuf;

use mtlora::train::report::{Report, RunReport};
use serde_json::{Value, json};

use crate::cli::console::output;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folders of the runs, finished or not.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write; an existing file is replaced.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let report = Report::open(&args.runs)?;
    report.write(&args.out)?;
    say!("the report is in {}", args.out.display())?;
    if json {
        let results: Vec<Value> = args.runs.iter().zip(&report.runs).map(summary).collect();
        output::json(&json!({
            "out": args.out,
            "runs": report.runs.len(),
            "results": results,
        }))?;
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
