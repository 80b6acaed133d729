//! Starts a run from an existing adapter, of another run or saved by PEFT.

use std::path::Path;

use burn::module::Module;
use mtlora_core::{BaseDtype, Init, Targets, adapters};
use mtlora_models::{AdapterConfig, CheckpointLayout, PeftAdapter, TargetModules};

use crate::run::error::RunError;
use crate::run::model::adapter_settings::AdapterSettings;
use crate::run::model::init_from_error::InitFromError;
use crate::run::model::method_name::MethodName;

/// Prepares `model` for training. If `settings` have an adapter to start from, its values are used, but not its head.
/// `modules_to_save` are trained in full beside the adapter.
///
/// A plain LoRA can start any structure, with `T = I`.
///
/// # Errors
/// If the folder does not have an adapter, or the adapter does not match the model, or differs from the settings in
/// rank, scale, structure or targets.
pub fn start<M: Module>(
    model: M,
    layout: &impl CheckpointLayout,
    settings: &AdapterSettings,
    modules_to_save: &[&str],
    seed: u64,
) -> Result<M, RunError> {
    let Some(from) = &settings.init_from else {
        return Ok(settings.method(modules_to_save, seed)?.prepare(model)?);
    };
    let adapter = read(settings, from)?.without_head();
    let also: Vec<String> = modules_to_save.iter().map(ToString::to_string).collect();
    // If the targets are the same, the modules are, too.
    if !has_same_targets(settings, &adapter.config) {
        let own = settings
            .method(modules_to_save, seed)?
            .prepare(model.clone())?;
        let theirs = adapter.attach(model, layout, &also)?;
        same_places(&own, &theirs, from)?;
        return Ok(theirs);
    }
    Ok(adapter.attach(model, layout, &also)?)
}

/// Attaches the adapter that `settings` start from, with its head, in the structure of the settings.
///
/// # Errors
/// As [`start`].
pub(crate) fn import<M: Module>(
    model: M,
    layout: &impl CheckpointLayout,
    settings: &AdapterSettings,
) -> Result<M, RunError> {
    let from = settings.init_from.as_deref();
    let from = from.ok_or(RunError::Settings("there is no adapter to import"))?;
    let adapter = read(settings, from)?;
    if !has_same_targets(settings, &adapter.config) {
        let theirs = targets_of(&adapter.config).map(|targets| targets.to_string());
        return Err(InitFromError::Differs {
            from: from.to_path_buf(),
            field: "targets",
            theirs: theirs.unwrap_or_else(|| "of its own".to_string()),
            ours: settings.targets.clone().unwrap_or_default(),
        }
        .into());
    }
    Ok(adapter.attach(model, layout, &[])?)
}

/// Reads the adapter that `settings` start from, and converts it to their structure and dropout.
fn read(settings: &AdapterSettings, from: &Path) -> Result<PeftAdapter, RunError> {
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

/// Checks that two models have adapters on the same modules.
fn same_places<M: Module>(own: &M, theirs: &M, from: &Path) -> Result<(), InitFromError> {
    let (own, theirs) = (adapters(own), adapters(theirs));
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

/// The targets of an adapter; `None` if it is only on some layers, which [`Targets`] cannot express.
fn targets_of(config: &AdapterConfig) -> Option<Targets> {
    if !config.layers_to_transform.is_empty() {
        return None;
    }
    Some(match config.target_modules.as_ref()? {
        TargetModules::Names(names) => Targets::names(names.iter().cloned()),
        TargetModules::Pattern(pattern) => Targets::Pattern(pattern.clone()),
        TargetModules::AllLinear => Targets::AllLinear,
    })
}

/// Whether the targets of the settings are those of the adapter.
fn has_same_targets(settings: &AdapterSettings, config: &AdapterConfig) -> bool {
    match settings.targets.as_deref().map(Targets::parse) {
        Some(ours) => targets_of(config) == Some(ours),
        None => true,
    }
}

fn same_settings(
    settings: &AdapterSettings,
    config: &AdapterConfig,
    from: &Path,
) -> Result<(), InitFromError> {
    let theirs = settings_of(config);
    let projections = |settings: &AdapterSettings| {
        let letters = settings.projections.clone();
        letters.unwrap_or_else(|| "none".to_string())
    };
    let (field, theirs, ours) = if theirs.rank != settings.rank {
        ("rank", theirs.rank.to_string(), settings.rank.to_string())
    } else if theirs.alpha != settings.alpha {
        (
            "alpha",
            theirs.alpha.to_string(),
            settings.alpha.to_string(),
        )
    } else if theirs.use_rslora != settings.use_rslora {
        (
            "use-rslora",
            theirs.use_rslora.to_string(),
            settings.use_rslora.to_string(),
        )
    } else if theirs.projections != settings.projections {
        ("projections", projections(&theirs), projections(settings))
    } else {
        return Ok(());
    };
    Err(InitFromError::Differs {
        from: from.to_path_buf(),
        field,
        theirs,
        ours,
    })
}

/// The settings with which an adapter was trained, or could have been.
pub fn settings_of(config: &AdapterConfig) -> AdapterSettings {
    let letters = |adapted: &[bool]| {
        let named = "qkv".chars().zip(adapted);
        let letters = named.filter(|(_, adapted)| **adapted);
        letters.map(|(letter, _)| letter).collect::<String>()
    };
    // The text is used only if it is parsed as the same targets.
    let targets = targets_of(config).and_then(|targets| {
        let text = targets.to_string();
        (Targets::parse(&text) == targets).then_some(text)
    });
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
        adalora: config.adalora.as_ref().map(|fields| fields.schedule),
    }
}
