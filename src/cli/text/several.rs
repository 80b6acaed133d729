//! Several adapters over one base model: what `predict` and `generate` share.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::models::AdapterConfig;
use mtlora::train::{GenerationRunConfig, NamedAdapter, Run, RunConfig, StoredConfig};

use crate::cli::hub;
use crate::cli::model::adapted;
use crate::cli::model::adapted::Source;
use crate::cli::model::finished::{self, CheckpointArgs};

/// Flags for several adapters.
#[derive(clap::Args)]
pub(crate) struct SeveralArgs {
    /// Each row of --input, a table (.csv, .tsv or .jsonl), is for the adapter that this column names;
    /// the base model is in memory once.
    #[arg(long, value_name = "COLUMN", requires = "adapter", requires = "input")]
    pub(crate) adapter_column: Option<String>,
}

/// The one adapter of a command that takes one, if it is given.
pub(crate) fn only(adapters: &[String]) -> Result<Option<PathBuf>, String> {
    match adapters {
        [] => Ok(None),
        [one] => Ok(Some(PathBuf::from(one))),
        _ => Err("several adapters need --adapter-column, which says which row uses which".into()),
    }
}

/// The table with the rows.
pub(crate) fn table(input: Option<&Path>) -> Result<&Path, String> {
    input.ok_or_else(|| "--adapter-column needs a table as --input".into())
}

/// What a run or an adapter in `folder` is of, which must put out labels or numbers.
pub(crate) fn classification(folder: &Path, stored: StoredConfig) -> Result<RunConfig, String> {
    match stored {
        StoredConfig::Classification(config) => Ok(*config),
        StoredConfig::Generation(_) => Err(format!(
            "{}: its task asks for texts: use `mtlora generate`",
            folder.display()
        )),
    }
}

/// What a run or an adapter in `folder` is of, which must write texts.
pub(crate) fn generation(
    folder: &Path,
    stored: StoredConfig,
) -> Result<GenerationRunConfig, String> {
    match stored {
        StoredConfig::Generation(config) => Ok(*config),
        StoredConfig::Classification(_) => Err(format!(
            "{}: its task asks for labels or numbers: use `mtlora predict`",
            folder.display()
        )),
    }
}

/// What `NAME=DIR` says of each adapter, and what it is a run of, which must be of one `kind`:
/// [`classification`] or [`generation`]. `model` goes before the base models that they name themselves.
pub(crate) fn open<C>(
    adapters: &[String],
    model: Option<&Path>,
    device: Option<&str>,
    kind: impl Fn(&Path, StoredConfig) -> Result<C, String>,
) -> Result<Vec<NamedAdapter<C>>, Box<dyn Error>> {
    let model = model.map(|model| hub::model(model, None, |_| Ok(())));
    let model = model.transpose()?;
    let mut found: Vec<NamedAdapter<C>> = Vec::with_capacity(adapters.len());
    for flag in adapters {
        let (name, folder) = match flag.split_once('=') {
            Some((name, folder)) if !name.trim().is_empty() => (name.trim(), PathBuf::from(folder)),
            _ => {
                return Err(format!(
                    "--adapter {flag}: with --adapter-column each adapter has a name, as in mood=runs/mood"
                )
                .into());
            }
        };
        if found.iter().any(|known| known.name == name) {
            return Err(format!("--adapter {flag}: there is an adapter {name} already").into());
        }
        let (folder, stored) = source(folder, model.as_deref(), device)?;
        found.push(NamedAdapter {
            name: name.to_string(),
            config: kind(&folder, stored)?,
            folder,
        });
    }
    Ok(found)
}

/// Where an adapter is, and what it is a run of.
fn source(
    folder: PathBuf,
    model: Option<&Path>,
    device: Option<&str>,
) -> Result<(PathBuf, StoredConfig), Box<dyn Error>> {
    if Run::is_in(&folder) {
        finished::note_if_unfinished(&folder)?;
        let (_, mut stored) = match model {
            // The run's own may be gone.
            Some(_) => StoredConfig::open(&folder)?,
            None => hub::open_run(&folder)?,
        };
        if let Some(model) = model {
            match &mut stored {
                StoredConfig::Classification(config) => config.model = model.to_path_buf(),
                StoredConfig::Generation(config) => config.model = model.to_path_buf(),
            }
        }
        return Ok((folder, stored));
    }
    let folder = hub::adapter(&folder)?;
    let model = match model {
        Some(model) => model.to_path_buf(),
        None => {
            let named = AdapterConfig::from_folder(&folder)?.base_model_name_or_path;
            let missing = || format!("{}: names no base model: give --model", folder.display());
            PathBuf::from(named.ok_or_else(missing)?)
        }
    };
    let source = Source {
        run: None,
        checkpoint: CheckpointArgs { checkpoint: None },
        adapter: Some(folder),
        model: Some(model),
    };
    adapted::source(source, device)
}
