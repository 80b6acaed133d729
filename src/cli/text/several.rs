//! Uses several adapters on one base model, for `predict` and `generate`.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::models::AdapterConfig;
use mtlora::train::{ModelSpec, NamedAdapter, Run, RunError};

use crate::cli::hub;
use crate::cli::model::adapted;
use crate::cli::model::adapted::{Source, TrainedModel};
use crate::cli::model::finished::{self, CheckpointArgs};

/// Flags for several adapters.
#[derive(clap::Args)]
pub(crate) struct SeveralArgs {
    /// The column of --input, which must be a table (.csv, .tsv or .jsonl), with the name of each row's adapter. All
    /// adapters share one base model in memory.
    #[arg(long, value_name = "COLUMN", requires = "adapter", requires = "input")]
    pub(crate) adapter_column: Option<String>,
}

/// The adapter of a command without `--adapter-column`, which takes at most one.
pub(crate) fn only(adapters: &[String]) -> Result<Option<PathBuf>, String> {
    match adapters {
        [] => Ok(None),
        [one] => Ok(Some(PathBuf::from(one))),
        _ => Err(
            "several adapters need --adapter-column, the column that names each row's adapter"
                .into(),
        ),
    }
}

/// The table, which must be given.
pub(crate) fn table(input: Option<&Path>) -> Result<&Path, String> {
    input.ok_or_else(|| "--adapter-column needs a table as --input".into())
}

/// An adapter with the name that the rows use.
pub(crate) struct Named<M> {
    pub(crate) name: String,
    pub(crate) trained: TrainedModel<M>,
}

impl<M> Named<M> {
    /// The adapter with the settings that load it on the shared base model.
    pub(crate) fn adapter<S>(&self, spec: impl Fn(&M) -> S) -> NamedAdapter<S> {
        NamedAdapter {
            name: self.name.clone(),
            folder: self.trained.folder.clone(),
            spec: spec(&self.trained.model),
        }
    }
}

/// Opens the adapters of the flags `NAME=DIR`. They must all be of one `kind`: [`TrainedModel::classifier`] or
/// [`TrainedModel::generator`]. `model` overrides the base models that the adapters name.
pub(crate) fn open<M>(
    adapters: &[String],
    model: Option<&Path>,
    device: Option<&str>,
    kind: impl Fn(TrainedModel) -> Result<TrainedModel<M>, String>,
) -> Result<Vec<Named<M>>, Box<dyn Error>> {
    let model = model.map(|model| hub::model(model, None, |_| Ok(())));
    let model = model.transpose()?;
    let mut found: Vec<Named<M>> = Vec::with_capacity(adapters.len());
    for flag in adapters {
        let (name, folder) = match flag.split_once('=') {
            Some((name, folder)) if !name.trim().is_empty() => (name.trim(), PathBuf::from(folder)),
            _ => {
                return Err(format!(
                    "--adapter {flag}: with --adapter-column each adapter needs a name, as in mood=runs/mood"
                )
                .into());
            }
        };
        if found.iter().any(|known| known.name == name) {
            return Err(
                format!("--adapter {flag}: there is already an adapter named {name}").into(),
            );
        }
        found.push(Named {
            name: name.to_string(),
            trained: kind(source(folder, model.as_deref(), device)?)?,
        });
    }
    Ok(found)
}

/// The error of loading `adapters`. If their base models differ, it says how to name one for all of them.
pub(crate) fn load_error<S: ModelSpec>(
    error: RunError,
    adapters: &[NamedAdapter<S>],
) -> Box<dyn Error> {
    let bases = || adapters.iter().map(|one| &one.spec.base().model);
    // Adapters over one model in different precisions need something else.
    let differ = bases().zip(bases().skip(1)).any(|(one, next)| one != next);
    match error {
        RunError::DifferentBases { .. } if differ => {
            format!("{error}; or name the base model of all of them with --model").into()
        }
        other => other.into(),
    }
}

/// Opens the adapter in a folder with its base model.
fn source(
    folder: PathBuf,
    model: Option<&Path>,
    device: Option<&str>,
) -> Result<TrainedModel, Box<dyn Error>> {
    if Run::is_in(&folder) {
        finished::note_if_unfinished(&folder)?;
        let config = match model {
            // The base model that the run names may be gone.
            Some(model) => {
                let mut config = Run::open(&folder)?.1;
                config.base.model = model.to_path_buf();
                config
            }
            None => adapted::open_run(&folder, None)?,
        };
        adapted::check_head(&folder, &config)?;
        return Ok(TrainedModel::of_run(folder, config));
    }
    let folder = hub::adapter(&folder)?;
    let model = match model {
        Some(model) => model.to_path_buf(),
        None => {
            let named = AdapterConfig::from_folder(&folder)?.base_model_name_or_path;
            let missing = || {
                format!(
                    "{}: the adapter names no base model: pass --model",
                    folder.display()
                )
            };
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
