//! Writing and reading the trained values of a model while it trains.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Module;
use burn::tensor::TensorData;
use mtlora_core::{AdaLoraSchedule, AdapterValues, Container, State, StateError, adapters, state};

use super::adalora::Rows;
use super::config::{AdapterConfig, TargetModules};
use super::error::AdapterError;
use super::keys::{factor_key, saved_key};
use super::peft::{AdaptedModule, PeftAdapter, reshaped};
use super::select::short_names;
use super::tied::is_output_map;
use super::write::{whole_modules, write_files};
use crate::files::checkpoint::Checkpoint;
use crate::files::save::write_checkpoint;
use crate::files::weights::{CheckpointLayout, Slot, slots, transpose};

/// The file with the trained values, by Hugging Face's names, of a model without an adapter.
pub const TRAINED_FILE: &str = "trained.safetensors";

/// The part of a factor's path between its module and the factor's name.
const FACTOR: &str = ".weight.mtlora.";

/// The file format of the values that a model trains: PEFT's if the model has an adapter, else [`TRAINED_FILE`].
///
/// It is made once, from the model that is ready to train, and writes any state of that model.
#[derive(Clone, Debug)]
pub struct TrainedFormat {
    /// The adapter's configuration, if there is an adapter.
    config: Option<AdapterConfig>,
    /// The place of each trained parameter in the files, by Burn's path.
    places: BTreeMap<String, Place>,
}

#[derive(Clone, Debug)]
struct Place {
    /// The name in the file.
    key: String,
    /// Burn's shape.
    shape: Vec<usize>,
    transposed: bool,
    /// Whether the file has it without its last side.
    vector: bool,
}

impl TrainedFormat {
    /// The format for `model`, whose trained parameters are those that require a gradient. `base` is the name of its base
    /// model, and `use_rslora` says how the scale is written down.
    ///
    /// # Errors
    /// When the adapters are of different methods.
    pub fn new<M: Module>(
        model: &M,
        layout: &impl CheckpointLayout,
        base: &str,
        use_rslora: bool,
    ) -> Result<Self, AdapterError> {
        let trained = state(model, |_, trains| trains);
        let all = slots(model, layout);
        let factors = adapters(model);
        let mut places = BTreeMap::new();
        let mut saved = BTreeSet::new();
        for slot in all.iter().filter(|slot| trained.contains_key(&slot.path)) {
            let mut vector = false;
            let key = match slot.path.rsplit_once(FACTOR) {
                Some((module, name)) => {
                    let embedding = is_embedding(&all, module);
                    let adapter = factors.get(module);
                    let Some(factor) = adapter.and_then(|one| one.form.method.factor(name)) else {
                        return Err(StateError::Unknown {
                            path: slot.path.clone(),
                        }
                        .into());
                    };
                    vector = factor.vector;
                    factor_key(&module_name(layout, module), factor, embedding)
                }
                None => {
                    let name = layout.stored_name(&slot.path);
                    saved.insert(name.clone());
                    if factors.is_empty() {
                        name
                    } else {
                        saved_key(&name)
                    }
                }
            };
            let place = Place {
                key,
                shape: slot.shape.clone(),
                transposed: slot.transposed,
                vector,
            };
            places.insert(slot.path.clone(), place);
        }
        let config = if factors.is_empty() {
            None
        } else {
            let modules = named(&all, layout, factors);
            let config = AdapterConfig {
                use_rslora,
                base_model_name_or_path: Some(base.to_string()),
                ..described(&all, layout, &saved, &modules)?
            };
            Some(config.describing(&modules))
        };
        Ok(Self { config, places })
    }

    /// The same format, whose configuration says how the ranks of an AdaLoRA adapter are pruned in a training of
    /// `total_step` steps.
    pub fn with_schedule(mut self, schedule: AdaLoraSchedule, total_step: usize) -> Self {
        let config = self.config.as_mut();
        if let Some(fields) = config.and_then(|config| config.adalora.as_mut()) {
            fields.schedule = schedule;
            fields.total_step = Some(total_step);
        }
        self
    }

    /// The adapter's configuration, if there is an adapter.
    pub fn config(&self) -> Option<&AdapterConfig> {
        self.config.as_ref()
    }

    /// Writes `values` into `folder`. Each file is replaced as a whole or stays as it was.
    ///
    /// # Errors
    /// When a path is not that of a trained parameter, or a file cannot be written.
    pub fn write(&self, folder: &Path, values: &State) -> Result<(), AdapterError> {
        let mut tensors = Vec::new();
        for (path, data) in values {
            let place = self
                .places
                .get(path)
                .ok_or_else(|| StateError::Unknown { path: path.clone() })?;
            tensors.push((place.key.clone(), place.stored(data)));
        }
        match &self.config {
            Some(config) => {
                write_files(folder, config, tensors)?;
            }
            None => {
                let tensors = tensors.into_iter().map(|(key, data)| {
                    let values: Vec<f32> = data.iter::<f32>().collect();
                    (key, data.shape().to_vec(), Cow::Owned(values))
                });
                write_checkpoint(&folder.join(TRAINED_FILE), tensors)?;
            }
        }
        Ok(())
    }

    /// Reads what [`Self::write`] wrote, by Burn's paths. What AdaLoRA pruned is zero.
    ///
    /// # Errors
    /// When a tensor is missing, unexpected, damaged or of another shape.
    pub fn read(&self, folder: &Path) -> Result<State, AdapterError> {
        let name = match &self.config {
            Some(_) => super::ADAPTER_WEIGHTS_FILE,
            None => TRAINED_FILE,
        };
        let file = Checkpoint::open_file(&folder.join(name))?;
        let rows = match &self.config {
            Some(config) if config.adalora.is_some() => Rows::of_folder(folder)?,
            _ => Rows::default(),
        };
        let shapes: Vec<(&str, Vec<usize>)> = self
            .places
            .values()
            .map(|place| {
                let shape = rows.shape_left(&place.key, place.stored_shape());
                (place.key.as_str(), shape)
            })
            .collect();
        let expected = shapes.iter().map(|(key, shape)| (*key, shape.as_slice()));
        file.check(expected, |_| false)?;
        let mut values = State::new();
        for (path, place) in &self.places {
            let whole = place.stored_shape();
            let left = rows.shape_left(&place.key, whole.clone());
            let stored = file.read_shaped(&place.key, &left)?;
            let stored = rows.restored(&place.key, stored, &whole);
            let stored = if place.transposed {
                transpose(&stored, place.shape[1], place.shape[0])
            } else {
                stored
            };
            values.insert(path.clone(), TensorData::new(stored, place.shape.clone()));
        }
        Ok(values)
    }
}

impl Place {
    fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        if self.vector {
            shape.truncate(1);
        }
        shape
    }

    fn stored(&self, data: &TensorData) -> TensorData {
        if !self.transposed {
            return reshaped(data, self.stored_shape());
        }
        let values: Vec<f32> = data.iter::<f32>().collect();
        let turned = transpose(&values, self.shape[0], self.shape[1]);
        TensorData::new(turned, self.stored_shape())
    }
}

impl PeftAdapter {
    /// Takes the adapter off a model that is ready to train, or that was trained. Parameters that require a gradient are
    /// the adapter's. `base` is the base model's name.
    ///
    /// # Errors
    /// When the model has no adapter, or adapters of different methods.
    pub fn of<M: Module>(
        model: &M,
        layout: &impl CheckpointLayout,
        base: &str,
        use_rslora: bool,
    ) -> Result<Self, AdapterError> {
        let format = TrainedFormat::new(model, layout, base, use_rslora)?;
        let Some(config) = format.config else {
            return Err(AdapterError::contradiction(
                Path::new(base),
                "the model has no adapter",
            ));
        };
        let all = slots(model, layout);
        let modules = named(&all, layout, adapters(model));
        let values = state(model, |path, trains| trains && !path.contains(FACTOR));
        let saved = values.iter().filter_map(|(path, data)| {
            let place = format.places.get(path)?;
            Some((layout.stored_name(path), place.stored(data)))
        });
        Ok(Self::new(config, modules, saved.collect()))
    }
}

/// The Hugging Face name of the module at Burn's path.
fn module_name(layout: &impl CheckpointLayout, path: &str) -> String {
    let name = layout.stored_name(&format!("{path}.weight"));
    name.trim_end_matches(".weight").to_string()
}

fn is_embedding(all: &[Slot], module: &str) -> bool {
    let weight = format!("{module}.weight");
    let slot = all.iter().find(|slot| slot.path == weight);
    slot.is_some_and(|slot| slot.kind == Container::Embedding)
}

fn named(
    all: &[Slot],
    layout: &impl CheckpointLayout,
    factors: BTreeMap<String, AdapterValues>,
) -> BTreeMap<String, AdaptedModule> {
    let modules = factors.into_iter().map(|(path, values)| {
        let embedding = is_embedding(all, &path);
        (
            module_name(layout, &path),
            AdaptedModule { values, embedding },
        )
    });
    modules.collect()
}

/// The part of the configuration of a model's adapters that does not depend on ranks and scales.
fn described(
    all: &[Slot],
    layout: &impl CheckpointLayout,
    saved: &BTreeSet<String>,
    modules: &BTreeMap<String, AdaptedModule>,
) -> Result<AdapterConfig, AdapterError> {
    let mut methods = modules.values().map(|module| module.values.form.method);
    let first = methods.next();
    if methods.any(|other| Some(other) != first) {
        return Err(AdapterError::contradiction(
            Path::new(super::ADAPTER_CONFIG_FILE),
            "the model has adapters of different methods, which one adapter cannot be",
        ));
    }
    let tensors: Vec<String> = all
        .iter()
        .filter(|slot| !slot.path.contains(FACTOR))
        .map(|slot| layout.stored_name(&slot.path))
        .collect();
    let modules_to_save = whole_modules(saved, &tensors);
    let kept = |name: &str| {
        let mut saved = modules_to_save.iter();
        saved.any(|saved| name == saved || name.starts_with(&format!("{saved}.")))
    };
    // PEFT looks at every module that is not saved whole, also at those that only hold others.
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for tensor in &tensors {
        let ancestors = tensor.match_indices('.').map(|(at, _)| &tensor[..at]);
        names.extend(ancestors.filter(|name| !kept(name)));
    }
    let names: Vec<&str> = names.into_iter().collect();
    let adapted: Vec<&str> = modules.keys().map(String::as_str).collect();
    let targets = TargetModules::Names(short_names(&adapted, &names));
    Ok(AdapterConfig {
        task_type: Some(layout.task_type().to_string()),
        fan_in_fan_out: !layout.transposes_linear(),
        tie_word_embeddings: !tensors.iter().any(|name| is_output_map(name)),
        modules_to_save,
        ..AdapterConfig::new(1, 1.0, targets)
    })
}
