//! Hanging an adapter on a model.

use std::collections::{BTreeMap, HashMap};

use burn::module::Module;
use burn::tensor::TensorData;
use mtlora_core::{Container, State, attach_adapters, load_state};

use super::config::MERGE;
use super::error::AdapterError;
use super::peft::PeftAdapter;
use super::select::Candidate;
use super::tied::{BARE_EMBEDDINGS, TIED, is_output_map};
use crate::error::ModelError;
use crate::files::names::ADAPTER_CONFIG_FILE;
use crate::files::weights::{CheckpointLayout, Slot, slots, transpose};
use crate::messages::{listed, shown};

impl PeftAdapter {
    /// Freezes `model`, hangs this adapter on it, and sets its trained tensors. The adapter's factors and tensors
    /// train, and so do the modules that `also` names (paths, or endings of them).
    ///
    /// # Errors
    /// When the model has no such module or tensor, a shape differs, or the adapter lacks a tensor that its
    /// configuration names.
    pub fn attach<M: Module>(
        &self,
        model: M,
        layout: &impl CheckpointLayout,
        also: &[String],
    ) -> Result<M, AdapterError> {
        let places = Places::new(&model, layout, self);
        let tied = !places.tensors.keys().any(|name| is_output_map(name));
        let own = self.own_modules(tied)?;
        let mut adapters = BTreeMap::new();
        let mut strangers = Vec::new();
        for (name, module) in &own {
            match places.modules.get(name.as_str()) {
                Some(slot) if (slot.kind == Container::Embedding) == module.embedding => {
                    let path = slot.path.trim_end_matches(".weight").to_string();
                    adapters.insert(path, module.values.clone());
                }
                _ => strangers.push((*name).clone()),
            }
        }
        if !strangers.is_empty() {
            return Err(AdapterError::NoModule {
                path: self.path.clone(),
                names: strangers,
            });
        }
        self.check_targets(&places)?;
        let (values, mut trained) = self.saved_values(&places, layout)?;
        trained.extend(also.iter().cloned());
        let model = attach_adapters(model, adapters, &trained)?;
        Ok(load_state(model, values)?)
    }

    /// Returns an error if the configuration targets a module of the model for which the adapter has no tensors.
    fn check_targets(&self, places: &Places) -> Result<(), AdapterError> {
        if self.config.target_modules.is_none() {
            return Ok(());
        }
        let candidates: Vec<Candidate<'_>> = places
            .modules
            .iter()
            .map(|(name, slot)| Candidate {
                name,
                linear: slot.kind == Container::Linear,
            })
            .collect();
        let mut without: Vec<&str> = self
            .config
            .targets(&self.path.with_file_name(ADAPTER_CONFIG_FILE), &candidates)?
            .into_iter()
            .filter(|name| !self.modules.contains_key(*name))
            .collect();
        without.sort_unstable();
        if without.is_empty() {
            return Ok(());
        }
        let message = format!(
            "has no adapter for {}, which adapter_config.json targets",
            listed(&without)
        );
        Err(AdapterError::contradiction(&self.path, message))
    }

    /// Returns the trained tensors by Burn's paths and in its layout, and the paths.
    fn saved_values(
        &self,
        places: &Places,
        layout: &impl CheckpointLayout,
    ) -> Result<(State, Vec<String>), AdapterError> {
        let mut values = State::new();
        let tied = !places.tensors.keys().any(|name| is_output_map(name));
        for (name, data) in &self.saved {
            let module = name.strip_suffix(".weight").unwrap_or(name);
            let of_both = module == TIED[0] || module == BARE_EMBEDDINGS;
            let absent = layout.foreign(name) && !places.tensors.contains_key(name.as_str());
            if absent || (tied && of_both) {
                return Err(AdapterError::unsupported(
                    &self.path,
                    format!("training {} itself", shown(name)),
                    MERGE,
                ));
            }
            let Some(slot) = places.tensors.get(name.as_str()) else {
                return Err(ModelError::UnexpectedTensors {
                    path: self.path.clone(),
                    names: vec![name.clone()],
                }
                .into());
            };
            let (expected, found) = (slot.stored_shape(), data.shape().to_vec());
            if expected != found {
                return Err(ModelError::WrongShape {
                    path: self.path.clone(),
                    name: name.clone(),
                    expected,
                    found,
                }
                .into());
            }
            let data = if slot.transposed {
                let stored: Vec<f32> = data.iter::<f32>().collect();
                let turned = transpose(&stored, slot.shape[1], slot.shape[0]);
                TensorData::new(turned, slot.shape.clone())
            } else {
                data.clone()
            };
            values.insert(slot.path.clone(), data);
        }
        // PEFT saves a module as a whole: part of one means that the file is incomplete.
        let half = places.tensors.iter().find(|(name, slot)| {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            let sibling = |other: &String| {
                self.config.modules_to_save.iter().any(|saved| {
                    let inside = |name: &str| {
                        name.starts_with(&format!("{saved}."))
                            || name.contains(&format!(".{saved}."))
                    };
                    inside(name) && inside(other)
                })
            };
            !values.contains_key(&slot.path)
                && self.config.saves(module)
                && self.saved.keys().any(sibling)
        });
        if let Some((name, _)) = half {
            return Err(ModelError::MissingTensors {
                path: self.path.clone(),
                names: vec![name.clone()],
            }
            .into());
        }
        let paths = values.keys().cloned().collect();
        Ok((values, paths))
    }
}

/// A model's weights that can be adapted, and all its tensors, by the names that the adapter uses. An adapter
/// that was trained on a model without a head uses names without the model's prefix.
struct Places {
    modules: BTreeMap<String, Slot>,
    tensors: HashMap<String, Slot>,
}

impl Places {
    fn new<M: Module>(model: &M, layout: &impl CheckpointLayout, adapter: &PeftAdapter) -> Self {
        let prefix = layout.prefix();
        let bare = !adapter.modules.keys().any(|name| name.starts_with(&prefix));
        let mut places = Self {
            modules: BTreeMap::new(),
            tensors: HashMap::new(),
        };
        for slot in slots(model, layout) {
            let name = layout.stored_name(&slot.path);
            let name = match name.strip_prefix(&prefix) {
                Some(rest) if bare => rest.to_string(),
                _ => name,
            };
            if slot.kind != Container::Other
                && let Some(module) = name.strip_suffix(".weight")
            {
                places.modules.insert(module.to_string(), slot.clone());
            }
            places.tensors.insert(name, slot);
        }
        places
    }
}
