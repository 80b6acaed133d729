//! Loads trained values into their model.

use std::path::Path;

use burn::module::Module;
use mtlora_core::load_state;
use mtlora_models::{
    ADAPTER_WEIGHTS_FILE, Checkpoint, CheckpointLayout, PeftAdapter, TRAINED_FILE, TrainedFormat,
    adapter_weights,
};

use crate::run::error::RunError;
use crate::run::model::adapter_settings::AdapterSettings;
use crate::run::model::method_name::MethodName;

/// Loads the trained values in `folder` into the base model, and returns it without gradients.
pub(crate) fn load<M: Module>(
    model: M,
    layout: &impl CheckpointLayout,
    settings: &AdapterSettings,
    folder: &Path,
) -> Result<M, RunError> {
    if settings.method == MethodName::MtLora {
        let adapter = PeftAdapter::from_folder(folder)?;
        let model = adapter.attach(model, layout, &[])?;
        return Ok(settings.keep_base(model)?.valid());
    }
    let model = settings.method(&[], 0)?.prepare(model)?;
    let format = TrainedFormat::new(&model, layout, "", false)?;
    let values = format.read(folder)?;
    Ok(settings.keep_base(load_state(model, values)?)?.valid())
}

/// The number of trained values in `folder`, which is that of a run or an adapter.
///
/// # Errors
/// If there is no file with trained values.
pub fn trained_parameters(folder: &Path) -> Result<usize, RunError> {
    let trained = folder.join(TRAINED_FILE);
    let path = match adapter_weights(folder) {
        Some(path) => path,
        None if trained.exists() => trained,
        // If neither file exists, the error names the one that most runs have.
        None => folder.join(ADAPTER_WEIGHTS_FILE),
    };
    let file = Checkpoint::open_file(&path)?;
    let shapes = file.names().filter_map(|name| file.shape(name));
    Ok(shapes.map(|shape| shape.iter().product::<usize>()).sum())
}
