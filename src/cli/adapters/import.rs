use std::error::Error;
use std::path::PathBuf;

use mtlora::core::{device, state};
use mtlora::train::Run;
use serde_json::json;

use crate::cli::console::output;
use crate::cli::hub;
use crate::cli::model::adapted;
use crate::cli::model::finished;
use crate::cli::model::head::HeadOf;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::resolve::Resolved;

/// Nothing is trained: the settings of training are only stored in the run. The run has the adapter and its head, and can
/// do all that a trained one can. It is of the task that
/// the flags say, with the settings that `train` would have; structure, rank, alpha, targets and dropout are
/// the adapter's own, whatever defaults stand below.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The adapter: a folder with PEFT's LoRA, a run's, or a name on the Hub.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The run's folder; must be new or empty.
    #[arg(long)]
    out: PathBuf,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(mut args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    if args.settings.init_from.is_some() {
        return Err("--init-from is for train: what import starts with is its --adapter".into());
    }
    let folder = hub::adapter(&args.adapter)?;
    adapted::refuse_own(&args.out, Some(&folder))?;
    // The settings say whether a run has ended.
    finished::check_usable(&folder)?;
    let adapter = adapted::read_finished(&folder)?;
    let trained = adapter.num_params();
    let modules = adapter.modules.len();
    args.settings.init_from = Some(folder.clone());
    match args.settings.resolve(HeadOf::Adapter(&folder, &adapter))? {
        Resolved::Classification(config, _) => {
            let parts = config.import(&device(&config.device)?.autodiff())?;
            let format = config.format(&parts)?;
            let run = Run::create(&args.out, args.overwrite, &*config)?;
            run.save_state(&format, &state(&parts.model, |_, trains| trains))?;
        }
        Resolved::Generation(config, _) => {
            let parts = config.import(&device(&config.device)?.autodiff())?;
            let format = config.format(&parts)?;
            let run = Run::create(&args.out, args.overwrite, &*config)?;
            run.save_state(&format, &state(&parts.model, |_, trains| trains))?;
        }
    }
    say!("the run is in {}", args.out.display())?;
    if json {
        output::json(&json!({ "out": args.out, "modules": modules, "parameters": trained }))?;
    }
    Ok(())
}
