//! Finds the model of a command: that of a run, or an adapter on a base model.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::core::BaseDtype;
use mtlora::models::{
    CausalConfig, ClassifierConfig, ClassifierModelConfig, GenerationConfig, ModelConfig,
    ModelFamilies, PeftAdapter, TextConfig, is_gguf,
};
use mtlora::train::{
    BaseSpec, ClassificationRun, ClassifierSpec, DataError, DataSpec, GenerationRun, GeneratorSpec,
    HeadSpec, MethodName, Objective, Run, RunConfig, RunKind, TableTask, TypedConfig, settings_of,
};

use crate::cli::console::output;
use crate::cli::hub;
use crate::cli::model::device;
use crate::cli::model::finished::{self, CheckpointArgs};
use crate::cli::model::head::{Head, HeadOf};
use crate::cli::model::known_classes;
use crate::cli::settings::defaults::Defaults;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::resolve::Resolved;
use crate::cli::text::encoding;

/// The seed of a head that neither the model nor the adapter has.
const SEED: u64 = 0;

/// Reads the adapter in a folder, and prints its unknown fields, which are ignored.
pub(crate) fn read(folder: &Path) -> Result<PeftAdapter, Box<dyn Error>> {
    finished::note_if_unfinished(folder)?;
    read_finished(folder)
}

/// Like [`read`], without a check whether the folder is that of an unfinished run.
pub(crate) fn read_finished(folder: &Path) -> Result<PeftAdapter, Box<dyn Error>> {
    refuse_without_adapter(folder)?;
    let adapter = PeftAdapter::from_folder(folder)?;
    if !adapter.config.ignored.is_empty() {
        note!(
            "{}: unknown fields of adapter_config.json are ignored: {}",
            folder.display(),
            output::printable(&adapter.config.ignored.join(", "))
        );
    }
    Ok(adapter)
}

/// Refuses the folder of a run that was trained without adapters, and says what can be done with it instead.
pub(crate) fn refuse_without_adapter(folder: &Path) -> Result<(), String> {
    let method = match Run::open(folder) {
        Ok((_, config)) => config.base.adapter.method,
        // What is wrong with a folder is said when the adapter is read.
        Err(_) => return Ok(()),
    };
    if method == MethodName::MtLora {
        return Ok(());
    }
    Err(format!(
        "{}: this run has no adapter, because it was trained with --method {method}: `mtlora merge --run` writes it as a whole \
         model, `mtlora push --merged` sends that to the Hub, and `eval` and `predict` use it with --run",
        folder.display()
    ))
}

/// Refuses to write a new run into a folder that it reads: the adapter that it starts from would be deleted before the new run
/// is complete, and the files of the run do not belong beside those of the base model or the data.
pub(crate) fn refuse_own<K>(out: &Path, config: &RunConfig<K>) -> Result<(), String> {
    if let Some(adapter) = &config.base.adapter.init_from {
        refuse_source(out, adapter, "the adapter that the run starts from")?;
    }
    refuse_source(out, &config.base.model, "the base model")?;
    refuse_source(out, &config.data.folder, "the data")
}

/// Refuses to write a result over one of the folders that it is made from. `purpose` says what the folder is for, as in
/// "the folder of the run that is exported".
pub(crate) fn refuse_source(out: &Path, source: &Path, purpose: &str) -> Result<(), String> {
    let place = |folder: &Path| folder.canonicalize().ok();
    if place(source).is_some() && place(source) == place(out) {
        return Err(format!(
            "{}: this is the folder of {purpose}; name another folder for --out",
            out.display()
        ));
    }
    Ok(())
}

/// Refuses the run in `folder` if its trained head is lost: another head would predict something else. An imported run
/// never had to have a head of its own.
pub(crate) fn check_head(folder: &Path, config: &RunConfig) -> Result<(), Box<dyn Error>> {
    let is_classification = matches!(config.kind, RunKind::Classification(_));
    let has_adapter = config.base.adapter.method == MethodName::MtLora;
    if !is_classification || !has_adapter || finished::is_imported(folder) {
        return Ok(());
    }
    if PeftAdapter::from_folder(folder)?.num_labels().is_some() {
        return Ok(());
    }
    Err(format!(
        "{}: the adapter in this run has no classification head, although training saved one: another adapter has \
         replaced it. Train the run again, or use the folder as an adapter (--adapter with --model)",
        folder.display()
    )
    .into())
}

/// The flags that name a run, perhaps with the place of its base model, or an adapter with a model.
pub(crate) struct Source {
    /// The folder of the run.
    pub(crate) run: Option<PathBuf>,
    /// The state of the run that is used.
    pub(crate) checkpoint: CheckpointArgs,
    /// The folder of the adapter, or its name on the Hub.
    pub(crate) adapter: Option<PathBuf>,
    /// The folder of the model, or its name on the Hub. For a run it takes the place of the base model that the run found.
    pub(crate) model: Option<PathBuf>,
}

/// A model with trained values. `M` is [`AnyModel`], or one of its kinds after the kind has been checked.
pub(crate) struct TrainedModel<M = AnyModel> {
    /// The folder with the trained values, which is that of a run or of an adapter.
    pub(crate) folder: PathBuf,
    /// The default device, which a flag can override.
    pub(crate) device: String,
    /// The model.
    pub(crate) model: M,
}

/// A model of either kind.
pub(crate) enum AnyModel {
    Classifier(Box<Classifier>),
    Generator(Box<Generator>),
}

/// A model that predicts labels or numbers.
pub(crate) struct Classifier {
    /// Loads the model.
    pub(crate) spec: ClassifierSpec,
    /// The run that trained the model, which has the task; `None` for an adapter without a run.
    pub(crate) run: Option<RunConfig<ClassificationRun>>,
}

/// A model that generates texts.
pub(crate) struct Generator {
    /// Loads the model.
    pub(crate) spec: GeneratorSpec,
    /// The decoding settings.
    pub(crate) decoding: GenerationConfig,
    /// The run that trained the model, which has the task; `None` for an adapter without a run, and for a run on
    /// conversations.
    pub(crate) run: Option<RunConfig<GenerationRun>>,
    /// The data, if the model was trained on conversations.
    pub(crate) chat: Option<DataSpec>,
}

impl TrainedModel {
    /// The model of the run in `folder`.
    pub(crate) fn of_run(folder: PathBuf, config: RunConfig) -> Self {
        Self {
            folder,
            device: config.device.clone(),
            model: match config.typed() {
                TypedConfig::Classification(config) => AnyModel::Classifier(Box::new(Classifier {
                    spec: config.model(),
                    run: Some(*config),
                })),
                TypedConfig::Generation(config) => AnyModel::Generator(Box::new(Generator {
                    spec: config.model(),
                    decoding: config.kind.decoding.clone(),
                    run: Some(*config),
                    chat: None,
                })),
                TypedConfig::Chat(config) => AnyModel::Generator(Box::new(Generator {
                    spec: config.model(),
                    decoding: config.kind.decoding,
                    run: None,
                    chat: Some(config.data),
                })),
            },
        }
    }

    /// The model, if it predicts labels or numbers.
    pub(crate) fn classifier(self) -> Result<TrainedModel<Classifier>, String> {
        match self.model {
            AnyModel::Classifier(model) => Ok(TrainedModel {
                folder: self.folder,
                device: self.device,
                model: *model,
            }),
            AnyModel::Generator(_) => Err(format!(
                "{}: this model writes texts: use `mtlora generate`",
                self.folder.display()
            )),
        }
    }

    /// The model, if it generates texts.
    pub(crate) fn generator(self) -> Result<TrainedModel<Generator>, String> {
        match self.model {
            AnyModel::Generator(model) => Ok(TrainedModel {
                folder: self.folder,
                device: self.device,
                model: *model,
            }),
            AnyModel::Classifier(_) => Err(format!(
                "{}: this model predicts labels or numbers: use `mtlora predict`",
                self.folder.display()
            )),
        }
    }
}

/// Opens the run in `folder`. Its base model is the one that `model` names (a folder, or a name on the Hub), and otherwise
/// the one where the run found it.
///
/// # Errors
/// If the base model is no longer where the run found it and `model` is `None`, if it is still there and `model` is another
/// one, and if `model` is of another kind.
pub(crate) fn open_run(folder: &Path, model: Option<&Path>) -> Result<RunConfig, Box<dyn Error>> {
    let Some(given) = model else {
        let (_, config) = hub::open_run(folder)?;
        refuse_missing_base(folder, &config.base.model)?;
        return Ok(config);
    };
    let (_, mut config) = Run::open(folder)?;
    let model = hub::model(given, None, |_| Ok(()))?;
    let known = &config.base.model;
    let is_same = known.canonicalize().is_ok_and(|known| known == model);
    if known.exists() && !is_same {
        return Err(format!(
            "{}: the base model of this run is in {}, so leave out --model: with --run it names the base model only if that \
             is no longer there (for a model without the run, leave out --run)",
            folder.display(),
            known.display()
        )
        .into());
    }
    let is_generation = !matches!(config.kind, RunKind::Classification(_));
    check_kind(
        &model,
        &ModelFamilies::builtin().open(&model)?,
        folder,
        is_generation,
    )?;
    if !is_same {
        note!(
            "{}: the base model is {}, in place of {}",
            folder.display(),
            model.display(),
            config.base.model.display()
        );
    }
    config.base.model = model;
    Ok(config)
}

/// Says how to name the base model of the run in `folder` if it is no longer in `model`, where the run found it.
pub(crate) fn refuse_missing_base(folder: &Path, model: &Path) -> Result<(), String> {
    if model.exists() {
        return Ok(());
    }
    Err(format!(
        "{}: the base model of this run was in {}, which does not exist any more: name the folder that it is in now with \
         --model",
        folder.display(),
        model.display()
    ))
}

/// Refuses a base model in `model` of another kind than that of the run in `folder`.
fn check_kind(
    model: &Path,
    found: &ModelConfig,
    folder: &Path,
    is_generation: bool,
) -> Result<(), String> {
    if is_generation == matches!(found, ModelConfig::Causal(_)) {
        return Ok(());
    }
    Err(format!(
        "{}: this model is of another kind than the base of the run in {}, which was trained on {}",
        model.display(),
        folder.display(),
        if is_generation {
            "a causal model"
        } else {
            "an encoder"
        }
    ))
}

/// Finds the model that the flags name.
pub(crate) fn source(source: Source, device: Option<&str>) -> Result<TrainedModel, Box<dyn Error>> {
    match (source.run, source.adapter, source.model) {
        (Some(run), _, model) => {
            source.checkpoint.check(&run)?;
            let config = open_run(&run, model.as_deref())?;
            check_head(&run, &config)?;
            Ok(TrainedModel::of_run(run, config))
        }
        (None, Some(adapter), Some(model)) => {
            let adapter = hub::adapter(&adapter)?;
            let model = hub::model(&model, None, |_| Ok(()))?;
            on_model(adapter, model, device)
        }
        _ => Err("--run is needed, or --adapter with --model".into()),
    }
}

/// The adapter in `folder` on the base model in `model`. If the folder is that of a classification run, the run's
/// task and labels are used, too.
fn on_model(
    folder: PathBuf,
    model: PathBuf,
    device: Option<&str>,
) -> Result<TrainedModel, Box<dyn Error>> {
    let adapter = read(&folder)?;
    let device = device::name_or_default(device)?;
    let run = if Run::is_in(&folder) {
        Some(Run::open(&folder)?.1.typed())
    } else {
        None
    };
    let config = ModelFamilies::builtin().open(&model)?;
    let chat = match &run {
        Some(TypedConfig::Chat(run)) => Some(run.data.clone()),
        _ => None,
    };
    let is_generation = chat.is_some() || matches!(run, Some(TypedConfig::Generation(_)));
    if run.is_some() {
        check_kind(&model, &config, &folder, is_generation)?;
    }
    let found = match (run, config) {
        (Some(TypedConfig::Classification(run)), _) => {
            AnyModel::Classifier(Box::new(classifier_of_run(*run, &folder, &adapter, model)?))
        }
        (_, ModelConfig::Causal(config)) => {
            let generator = generator(&adapter, model, &config)?;
            AnyModel::Generator(Box::new(Generator { chat, ..generator }))
        }
        (_, ModelConfig::Classifier(config)) => {
            AnyModel::Classifier(Box::new(classifier(&folder, &adapter, model, &config)?))
        }
    };
    Ok(TrainedModel {
        folder,
        device,
        model: found,
    })
}

/// The classifier of a run, on another copy of the run's base model.
fn classifier_of_run(
    run: RunConfig<ClassificationRun>,
    folder: &Path,
    adapter: &PeftAdapter,
    model: PathBuf,
) -> Result<Classifier, Box<dyn Error>> {
    let head = Head::find(HeadOf::Adapter(folder, adapter), &model)?;
    let mut spec = run.model();
    spec.head.fresh = head.fresh;
    spec.base.model = model;
    spec.base.adapter = settings_of(&adapter.config);
    Ok(Classifier {
        spec,
        run: Some(run),
    })
}

/// An adapter without a run on an encoder. The outputs are those of the adapter's head, or of the model's if it has
/// none.
fn classifier(
    folder: &Path,
    adapter: &PeftAdapter,
    model: PathBuf,
    config: &ClassifierConfig,
) -> Result<Classifier, Box<dyn Error>> {
    let head = Head::find(HeadOf::Adapter(folder, adapter), &model)?;
    let labels = head.labels.unwrap_or_else(|| config.labels().to_vec());
    let objective = match labels.len() {
        1 => Objective::Regression,
        _ => Objective::Classification { labels },
    };
    let default = Defaults::classification().max_length;
    let max_length = encoding::default_length(&model, default)?.min(config.max_tokens());
    Ok(Classifier {
        spec: ClassifierSpec {
            base: BaseSpec {
                model,
                max_length,
                adapter: settings_of(&adapter.config),
            },
            head: HeadSpec {
                fresh: head.fresh,
                objective,
            },
            seed: SEED,
        },
        run: None,
    })
}

/// An adapter on a causal model. The decoding settings are those in the model's folder.
fn generator(
    adapter: &PeftAdapter,
    model: PathBuf,
    config: &CausalConfig,
) -> Result<Generator, Box<dyn Error>> {
    let mut settings = settings_of(&adapter.config);
    if is_gguf(&model) {
        settings.base_dtype = BaseDtype::Packed;
    }
    Ok(Generator {
        decoding: GenerationConfig::from_folder(&model, config.vocab_size())?,
        spec: GeneratorSpec {
            base: BaseSpec {
                model,
                max_length: config.max_tokens(),
                adapter: settings,
            },
            seed: SEED,
        },
        run: None,
        chat: None,
    })
}

/// The configuration of a run that could have trained the adapter in `folder`. `settings` name the task, the base
/// model and the data.
pub(crate) fn config_for_task(
    folder: &Path,
    settings: Settings,
) -> Result<TypedConfig, Box<dyn Error>> {
    let adapter = read(folder)?;
    let of_adapter = settings_of(&adapter.config);
    let resolved = settings.clone().resolve(HeadOf::Adapter(folder, &adapter));
    let resolved = match resolved {
        // The error is about the train split, which nothing else reads here.
        Err(error) if settings.task.as_deref() == Some(TableTask::NAME) => {
            match error.downcast_ref::<DataError>() {
                Some(missing @ DataError::NotFound { .. }) => {
                    let config = known_classes::of_adapter(folder, &adapter, &settings, missing)?;
                    return Ok(TypedConfig::Classification(Box::new(config)));
                }
                _ => return Err(error),
            }
        }
        resolved => resolved?,
    };
    Ok(match resolved {
        Resolved::Classification(mut config, _) => {
            config.base.adapter = of_adapter;
            TypedConfig::Classification(config)
        }
        Resolved::Generation(mut config, _) => {
            config.base.adapter = of_adapter;
            TypedConfig::Generation(config)
        }
        Resolved::Chat(mut config) => {
            config.base.adapter = of_adapter;
            TypedConfig::Chat(config)
        }
    })
}
