use std::error::Error;
use std::path::PathBuf;

use mtlora::train::report::Report;
use serde_json::json;

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
        output::json(&json!({ "out": args.out, "runs": report.runs.len() }))?;
    }
    Ok(())
}
