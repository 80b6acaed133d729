//! The flags of `mtlora table`.

use std::error::Error;
use std::path::PathBuf;

use clap::ValueEnum;
use mtlora::models::write_atomically;
use serde_json::json;

use crate::cli::compare::gather;
use crate::cli::compare::peft;
use crate::cli::console::output;
use crate::cli::sweep::store::Store;

/// The form of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For reading: scores, differences, spreads and the settings that were chosen.
    Markdown,
    /// The scores, for the package booktabs.
    Latex,
    /// One line for each task and arm, and for each arm's mean over all tasks.
    Csv,
    /// Every number.
    Json,
    /// A folder with a file for each run, as in PEFT's method_comparison.
    Peft,
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder of the sweep, complete or not.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The form of the table.
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
    /// The file to write, or the folder for --format peft [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The metric [default: what the sweep's file says, or the first metric of each task].
    #[arg(long)]
    metric: Option<String>,
    /// The arm that the others are compared with [default: the sweep's].
    #[arg(long, value_name = "ARM")]
    baseline: Option<String>,
    /// Add times and memory, which are never the same twice.
    #[arg(long)]
    costs: bool,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    let (store, plan) = Store::open(&args.folder)?;
    let outcomes = store.ended(&plan)?;
    let mut comparison = gather::comparison(&plan, &outcomes, args.metric.as_deref())?;
    if let Some(name) = &args.baseline {
        let index = comparison.arms.iter().position(|arm| arm == name);
        comparison.baseline = index.ok_or_else(|| {
            format!(
                "--baseline: there is no arm {name}: one of {}",
                comparison.arms.join(", ")
            )
        })?;
    }
    let missing = plan.cells.len() - outcomes.len();
    if missing > 0 {
        note!(
            "{missing} of {} runs {} missing: the table shows what is there",
            plan.cells.len(),
            if missing == 1 { "is" } else { "are" }
        );
    }
    if !args.costs {
        for arm in comparison.tasks.iter_mut().flat_map(|task| &mut task.arms) {
            if let Some(costs) = &mut arm.costs {
                costs.train_seconds = None;
                costs.peak_rss_mb = None;
            }
        }
    }
    let whole = || json!({ "comparison": comparison, "analysis": comparison.analysis() });
    let text = match args.format {
        Format::Markdown => comparison.to_markdown(args.costs),
        Format::Latex => comparison.to_latex(),
        Format::Csv => comparison.to_csv(args.costs)?,
        Format::Json => serde_json::to_string_pretty(&whole())? + "\n",
        Format::Peft => {
            let out = args.out.as_deref().ok_or(
                "--out is needed with --format peft: the folder that gets a file for each run",
            )?;
            let count = peft::write(out, &plan, &outcomes, &store, &comparison)?;
            say!("{count} files are in {}", out.display())?;
            return Ok(());
        }
    };
    match &args.out {
        Some(path) => {
            write_atomically(path, text.as_bytes())?;
            say!("the table is in {}", path.display())?;
        }
        None => output::print(&text)?,
    }
    if json {
        output::json(&whole())?;
    }
    Ok(())
}
