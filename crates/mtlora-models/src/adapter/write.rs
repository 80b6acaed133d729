//! Writing an adapter's two files.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::TensorData;

use super::adalora::cut;
use super::config::AdapterConfig;
use crate::error::ModelError;
use crate::files::names::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};
use crate::files::save::{write_atomically, write_checkpoint};

/// Writes an adapter's folder.
pub(super) fn write_files(
    folder: &Path,
    config: &AdapterConfig,
    tensors: Vec<(String, TensorData)>,
) -> Result<(), ModelError> {
    let (config, tensors) = cut(config, tensors);
    let tensors = tensors.into_iter().map(|(key, data)| {
        let values: Vec<f32> = data.iter::<f32>().collect();
        (key, data.shape().to_vec(), Cow::Owned(values))
    });
    // The configuration is written first, so that a killed program never leaves weights without one.
    write_atomically(
        &folder.join(ADAPTER_CONFIG_FILE),
        config.to_json().as_bytes(),
    )?;
    write_checkpoint(&folder.join(ADAPTER_WEIGHTS_FILE), tensors)
}

/// The modules all of whose tensors were trained. Of modules inside one another only the outermost is listed.
pub(super) fn whole_modules(trained: &BTreeSet<String>, all: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in trained {
        let ancestors = name.match_indices('.').map(|(at, _)| &name[..at]);
        let whole = |module: &&str| {
            let inside = format!("{module}.");
            let mut tensors = all.iter().filter(|name| name.starts_with(&inside));
            tensors.all(|name| trained.contains(name))
        };
        if let Some(module) = ancestors.into_iter().find(whole)
            && !found.iter().any(|known| known == module)
        {
            found.push(module.to_string());
        }
    }
    found
}
