//! An adapter as mlx-lm reads it (`load_adapters` and `linear_to_lora_layers` in its `tuner/utils.py`, `LoRALinear` in
//! `tuner/lora.py`): `lora_a` `[in, rank]` and `lora_b` `[rank, out]`, the transposes of PEFT's, with one rank and one scale for
//! all, and the names of the adapted modules within a layer. Every layer gets all of these modules; one without factors of its
//! own begins with an update of zero.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::error::ExportError;
use super::plain::{PlainAdapter, factors};
use crate::files::names::ADAPTER_CONFIG_FILE;
use crate::files::save::{create_folder, write_atomically, write_checkpoint};
use crate::files::weights::transpose;

/// Writes the two files.
pub(super) fn write(plain: &PlainAdapter<'_>, folder: &Path) -> Result<Vec<PathBuf>, ExportError> {
    let mut keys = BTreeSet::new();
    let mut tensors = Vec::new();
    for (name, module) in &plain.adapter.modules {
        // `model.layers.3.self_attn.q_proj`: what comes after the layer's number.
        keys.extend(name.splitn(4, '.').nth(3));
        for (end, (values, [rows, columns])) in
            ["lora_a", "lora_b"].into_iter().zip(factors(module))
        {
            let turned = transpose(&values, rows, columns);
            tensors.push((
                format!("{name}.{end}"),
                vec![columns, rows],
                Cow::Owned(turned),
            ));
        }
    }
    let config = json!({
        "fine_tune_type": "lora",
        "model": plain.adapter.config.base_model_name_or_path,
        // All layers.
        "num_layers": -1,
        "lora_parameters": {"rank": plain.rank(), "scale": 1.0, "dropout": 0.0, "keys": keys},
    });
    create_folder(folder)?;
    let (config_path, path) = (
        folder.join(ADAPTER_CONFIG_FILE),
        folder.join("adapters.safetensors"),
    );
    // The configuration comes last, so that a folder with one is whole.
    write_checkpoint(&path, tensors)?;
    write_atomically(&config_path, format!("{config:#}\n").as_bytes())?;
    Ok(vec![path, config_path])
}
