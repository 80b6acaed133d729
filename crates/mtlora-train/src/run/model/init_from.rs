//! Starting from an adapter that is there: another run's, or one of PEFT's.

use std::path::{Path, PathBuf};

use burn::module::Module;
use mtlora_core::{BaseDtype, Init, adapters};
use mtlora_models::{AdapterConfig, CheckpointLayout, PeftAdapter, TargetModules};

use crate::run::model::adapter_settings::{AdapterSettings, MethodName};
use crate::training::learners::classification::TrainError;

/// Why a run cannot start from an adapter.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum InitFromError {
    /// This run trains something else.
    #[error("method {method} has no adapter that could start from another's; choose method mtlora")]
    NoAdapterHere {
        /// What it trains.
        method: MethodName,
    },
    /// The adapters are of different kinds.
    #[error(
        "{}: its adapter has {field} {theirs}, this run's has {ours}; choose {field} {theirs}, or start from an \
         adapter with {field} {ours}",
        .from.display()
    )]
    Differs {
        /// The adapter's folder.
        from: PathBuf,
        /// The setting.
        field: &'static str,
        /// The adapter's.
        theirs: String,
        /// This run's.
        ours: String,
    },
    /// One has an adapter where the other has none.
    #[error(
        "{}: {} an adapter on `{path}`{}, {}; leave --targets out, and the adapter's are taken",
        .from.display(),
        if *.theirs { "has" } else { "has no" },
        match .more { 0 => String::new(), more => format!(" (and {more} more)") },
        if *.theirs { "which --targets leaves out" } else { "which --targets names" }
    )]
    Place {
        /// The adapter's folder.
        from: PathBuf,
        /// Whether it is the adapter that has it.
        theirs: bool,
        /// The first such module.
        path: String,
        /// How many others there are.
        more: usize,
    },
}

/// `model`, ready to train as `settings` say, with the adapter that they start from if they name one,
/// but not that adapter's head. `modules_to_save` train beside it.
///
/// Plain LoRA starts any structure, with `T = I`.
///
/// # Errors
/// When that is no adapter's folder, the adapter does not fit the model, or it has another rank, scale
/// or structure or other targets than the settings.
pub fn start<M: Module>(
    model: M,
    layout: &impl CheckpointLayout,
    settings: &AdapterSettings,
    modules_to_save: &[&str],
    seed: u64,
) -> Result<M, TrainError> {
    let Some(from) = &settings.init_from else {
        return Ok(settings.method(modules_to_save, seed)?.prepare(model)?);
    };
    let adapter = read(settings, from)?.without_head();
    let also: Vec<String> = modules_to_save.iter().map(ToString::to_string).collect();
    // Where the same words say which weights are adapted there is nothing to compare.
    if settings.targets != settings_of(&adapter.config).targets {
        let own = settings
            .method(modules_to_save, seed)?
            .prepare(model.clone())?;
        let theirs = adapter.attach(model, layout, &also)?;
        same_places(&own, &theirs, from)?;
        return Ok(theirs);
    }
    Ok(adapter.attach(model, layout, &also)?)
}

/// `model` with the adapter that `settings` start from, in their structure, its head included.
///
/// # Errors
/// As [`start`].
pub(crate) fn import<M: Module>(
    model: M,
    layout: &impl CheckpointLayout,
    settings: &AdapterSettings,
) -> Result<M, TrainError> {
    let from = settings.init_from.as_deref();
    let from = from.ok_or(TrainError::Option("there is no adapter to import"))?;
    let adapter = read(settings, from)?;
    let theirs = settings_of(&adapter.config).targets;
    if settings.targets != theirs {
        return Err(InitFromError::Differs {
            from: from.to_path_buf(),
            field: "targets",
            theirs,
            ours: settings.targets.clone(),
        }
        .into());
    }
    Ok(adapter.attach(model, layout, &[])?)
}

/// The adapter that `settings` start from, in their structure and with their dropout.
fn read(settings: &AdapterSettings, from: &Path) -> Result<PeftAdapter, TrainError> {
    if settings.method != MethodName::MtLora {
        let method = settings.method;
        return Err(InitFromError::NoAdapterHere { method }.into());
    }
    let adapter = PeftAdapter::from_folder(from)?;
    same_settings(settings, &adapter.config, from)?;
    let theirs = adapter.config.method;
    let converted = adapter.in_method(settings.structure, settings.dropout);
    let converted = converted.ok_or_else(|| InitFromError::Differs {
        from: from.to_path_buf(),
        field: "structure",
        theirs: theirs.to_string(),
        ours: settings.structure.to_string(),
    });
    Ok(converted?)
}

/// An error if one of two models has an adapter where the other has none.
fn same_places<M: Module>(own: &M, theirs: &M, from: &Path) -> Result<(), InitFromError> {
    let [own, theirs] = [own, theirs].map(adapters);
    for (is_theirs, these, those) in [(true, &theirs, &own), (false, &own, &theirs)] {
        let mut without = these.keys().filter(|path| !those.contains_key(*path));
        if let Some(path) = without.next() {
            return Err(InitFromError::Place {
                from: from.to_path_buf(),
                theirs: is_theirs,
                path: path.clone(),
                more: without.count(),
            });
        }
    }
    Ok(())
}

fn same_settings(
    settings: &AdapterSettings,
    config: &AdapterConfig,
    from: &Path,
) -> Result<(), InitFromError> {
    let theirs = settings_of(config);
    let word = |rslora: bool| rslora.to_string();
    let none = || "none".to_string();
    let fields = [
        ("rank", theirs.rank.to_string(), settings.rank.to_string()),
        (
            "alpha",
            theirs.alpha.to_string(),
            settings.alpha.to_string(),
        ),
        (
            "use-rslora",
            word(theirs.use_rslora),
            word(settings.use_rslora),
        ),
        (
            "projections",
            theirs.projections.unwrap_or_else(none),
            settings.projections.clone().unwrap_or_else(none),
        ),
    ];
    match fields.into_iter().find(|(_, theirs, ours)| theirs != ours) {
        None => Ok(()),
        Some((field, theirs, ours)) => Err(InitFromError::Differs {
            from: from.to_path_buf(),
            field,
            theirs,
            ours,
        }),
    }
}

/// What an adapter's folder says of the settings that it was, or could have been, trained with.
pub fn settings_of(config: &AdapterConfig) -> AdapterSettings {
    let letters = |adapted: &[bool]| {
        let named = "qkv".chars().zip(adapted);
        let letters = named.filter(|(_, adapted)| **adapted);
        letters.map(|(letter, _)| letter).collect::<String>()
    };
    let mut targets = match &config.target_modules {
        Some(TargetModules::Names(names)) => names.join(","),
        Some(TargetModules::Pattern(pattern)) => pattern.clone(),
        Some(TargetModules::AllLinear) => "all-linear".to_string(),
        None => "the adapter's".to_string(),
    };
    if !config.layers_to_transform.is_empty() {
        targets.push_str(" of some layers");
    }
    AdapterSettings {
        method: MethodName::MtLora,
        structure: config.method,
        rank: config.r,
        alpha: config.lora_alpha,
        use_rslora: config.use_rslora,
        dropout: config.lora_dropout,
        init: Init::Kaiming,
        init_from: None,
        targets,
        projections: config
            .fused_projections
            .first()
            .map(|fused| letters(&fused.adapted)),
        base_dtype: BaseDtype::F32,
    }
}
