use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::state;
use mtlora::train::{ModelSpec, Run, RunConfig};
use serde_json::json;

use crate::cli::console::output;
use crate::cli::hub;
use crate::cli::model::adapted;
use crate::cli::model::device;
use crate::cli::model::finished;
use crate::cli::model::head::HeadOf;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::resolve::Resolved;

/// Nothing is trained; the settings of training are only stored in the run. The run has the adapter and its head, and
/// can be used like a trained one. Its task and other settings come from the flags and defaults of train. Structure,
/// rank, alpha, targets and dropout are those of the adapter, whatever defaults are listed below.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The adapter: the folder of a run, a folder with LoRA saved by PEFT, or a name on the Hub.
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
        return Err(
            "--init-from cannot be used with import: name the adapter with --adapter".into(),
        );
    }
    let folder = hub::adapter(&args.adapter)?;
    adapted::refuse_source(&args.out, &folder, "the adapter that the run starts from")?;
    // An unfinished run has no usable values yet, or only a provisional best state.
    finished::check_usable(&folder)?;
    let adapter = adapted::read_finished(&folder)?;
    let trained = adapter.num_params();
    let modules = adapter.modules.len();
    args.settings.init_from = Some(folder.clone());
    let head = HeadOf::Adapter(&folder, &adapter);
    match args.settings.resolve(head)? {
        Resolved::Classification(config, _) => {
            write(config.model(), (*config).into(), &args.out, args.overwrite)?;
        }
        Resolved::Generation(config, _) => {
            write(config.model(), (*config).into(), &args.out, args.overwrite)?;
        }
        Resolved::Chat(config) => {
            write(config.model(), (*config).into(), &args.out, args.overwrite)?;
        }
    }
    say!("the run is in {}", args.out.display())?;
    if json {
        output::json(&json!({ "out": args.out, "modules": modules, "parameters": trained }))?;
    }
    Ok(())
}

/// Creates a run with the adapter that its settings start from.
fn write(
    spec: impl ModelSpec,
    config: RunConfig,
    out: &Path,
    overwrite: bool,
) -> Result<(), Box<dyn Error>> {
    let imported = spec.import(&device::open(&config.device)?.autodiff())?;
    let format = spec.format(&imported)?;
    let run = Run::create(out, overwrite, &config)?;
    run.save_state(&format, &state(&imported.model, |_, trains| trains))?;
    Ok(())
}
