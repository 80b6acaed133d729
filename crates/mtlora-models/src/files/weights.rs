//! Between Burn's parameters and a checkpoint's tensors: names, layouts, and fresh values.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::Module;
use burn::tensor::TensorData;
use mtlora_core::{BaseDtype, Container, LoadedValue, each_parameter, load_each, state};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::StandardNormal;
use serde_json::Value;

use crate::error::ModelError;
use crate::files::checkpoint::Checkpoint;
use crate::files::names::CONFIG_FILE;
use crate::files::save::{NamedTensor, create_folder, write_atomically, write_checkpoint_in};
use crate::files::stored_dtype::StoredDtype;
use crate::files::tensor_values::TensorValues;

/// One parameter of a model.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Burn's path.
    pub(crate) path: String,
    /// Burn's shape.
    pub(crate) shape: Vec<usize>,
    /// Whether the checkpoint keeps it transposed: PyTorch's linear weights are `[out, in]`.
    pub(crate) transposed: bool,
    /// What kind of weight it is.
    pub(crate) kind: Container,
}

impl Slot {
    /// The shape in the checkpoint.
    pub(crate) fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }
}

/// How a family of models is kept in Hugging Face's files; its configuration knows it.
pub trait CheckpointLayout {
    /// What names of the model without its head have in front in a model with one, as `roberta.`.
    fn prefix(&self) -> String;
    /// The tensor's name in the checkpoint, with the prefix.
    fn stored_name(&self, path: &str) -> String;
    /// Whether linear weights are kept as PyTorch's `Linear` has them, `[out, in]`.
    fn transposes_linear(&self) -> bool;
    /// Other names by which a file may have this tensor, because the model uses one weight for both: tools that keep a
    /// shared weight once write whichever of its names they like.
    fn tied_names(&self, _name: &str) -> &'static [&'static str] {
        &[]
    }
    /// Tensors that other models of the family have and this one does not read.
    fn foreign(&self, name: &str) -> bool;
    /// Standard deviation of a fresh parameter's values.
    fn init_std(&self, path: &str) -> f64;
    /// The text of its config.json.
    fn to_json(&self) -> String;
    /// What PEFT calls the task of the models that adapters are for.
    fn task_type(&self) -> &'static str;
}

/// Whether a checkpoint has both of two tensors, by these names, with different values. The first may lack the
/// layout's prefix.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn has_two_weights(
    checkpoint: &Checkpoint,
    layout: &(impl CheckpointLayout + ?Sized),
    first: &str,
    second: &str,
) -> Result<bool, ModelError> {
    let prefix = layout.prefix();
    let short = first.strip_prefix(prefix.as_str());
    let first = std::iter::once(first)
        .chain(short)
        .find(|name| checkpoint.contains(name));
    match first {
        Some(first) if checkpoint.contains(second) => Ok(!checkpoint.is_equal(first, second)?),
        _ => Ok(false),
    }
}

/// Every parameter of a model, those of its adapters too.
pub(crate) fn slots<M: Module>(model: &M, config: &(impl CheckpointLayout + ?Sized)) -> Vec<Slot> {
    let transposes_linear = config.transposes_linear();
    let mut slots = Vec::new();
    each_parameter(model, |parameter| {
        let shape = parameter.shape().to_vec();
        let kind = if shape.len() == 2 {
            parameter.container
        } else {
            Container::Other
        };
        slots.push(Slot {
            path: parameter.path.to_string(),
            shape,
            transposed: transposes_linear && kind == Container::Linear,
            kind,
        });
    });
    slots
}

/// `model` with random values throughout; `dtype` says in which precision a weight is kept.
pub(crate) fn fresh<M: Module>(
    model: M,
    config: &(impl CheckpointLayout + ?Sized),
    seed: u64,
    dtype: impl Fn(&str) -> BaseDtype,
) -> Result<M, ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let slots = slots(&model, config);
    let mut slots = slots.iter();
    // A module is gone through in the same order each time.
    load_each(model, |path| {
        let slot = slots.next();
        let value = |slot| LoadedValue::Dense(start(slot, config, &mut rng), dtype(path));
        Ok(slot.map(value))
    })
}

/// How a parameter starts, as Hugging Face's models do it: norms at one, biases at zero, the rest
/// Gaussian.
fn start(
    slot: &Slot,
    config: &(impl CheckpointLayout + ?Sized),
    rng: &mut ChaCha8Rng,
) -> TensorData {
    let count = slot.shape.iter().product();
    let init_std = config.init_std(&slot.path);
    let values: Vec<f32> = match slot.shape.len() {
        1 if slot.path.ends_with("gamma") => vec![1.0; count],
        1 => vec![0.0; count],
        _ => (0..count)
            .map(|_| (init_std * rng.sample::<f64, _>(StandardNormal)) as f32)
            .collect(),
    };
    TensorData::new(values, slot.shape.clone())
}

/// `model` with the checkpoint's values; parameters whose names `optional` accepts may be missing
/// there, start from `seed` and come back by name. `dtype` says by its path in which precision a weight
/// of the checkpoint is kept.
pub(crate) fn read<M: Module>(
    model: M,
    checkpoint: &Checkpoint,
    config: &(impl CheckpointLayout + ?Sized),
    seed: u64,
    optional: impl Fn(&str) -> bool,
    dtype: impl Fn(&str) -> BaseDtype,
) -> Result<(M, Vec<String>), ModelError> {
    let prefix = config.prefix();
    // A checkpoint of the bare encoder has its names without the architecture in front.
    let bare = !checkpoint.names().any(|name| name.starts_with(&prefix));
    let name_of = |slot: &Slot| {
        let name = config.stored_name(&slot.path);
        let short = name.strip_prefix(&prefix);
        let tied = config.tied_names(&name).iter().copied();
        let there = std::iter::once(name.as_str())
            .chain(short)
            .chain(tied)
            .find(|name| checkpoint.contains(name));
        match (there, short) {
            (Some(there), _) => there.to_string(),
            (None, Some(short)) if bare => short.to_string(),
            _ => name,
        }
    };
    let optional = |slot: &Slot| optional(&config.stored_name(&slot.path));
    let slots = slots(&model, config);
    let (absent, present): (Vec<&Slot>, Vec<&Slot>) = slots
        .iter()
        .partition(|slot| optional(slot) && !checkpoint.contains(&name_of(slot)));

    let expected: Vec<(String, Vec<usize>)> = present
        .iter()
        .map(|slot| (name_of(slot), slot.stored_shape()))
        .collect();
    checkpoint.check(
        expected
            .iter()
            .map(|(name, shape)| (name.as_str(), shape.as_slice())),
        |name| config.foreign(name),
    )?;

    let names = absent
        .iter()
        .map(|slot| config.stored_name(&slot.path))
        .collect();
    let absent: BTreeSet<&str> = absent.iter().map(|slot| slot.path.as_str()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut all = slots.iter();
    // A module is gone through in the same order each time.
    let model = load_each(model, |path| {
        let Some(slot) = all.next() else {
            return Ok(None);
        };
        if absent.contains(path) {
            let value = start(slot, config, &mut rng);
            return Ok(Some(LoadedValue::Dense(value, BaseDtype::F32)));
        }
        let name = name_of(slot);
        let is_as_packed = match slot.kind {
            Container::Linear => slot.transposed,
            Container::Embedding => true,
            Container::Other => false,
        };
        if is_as_packed
            && dtype(path) == BaseDtype::Packed
            && checkpoint.shape(&name) == Some(&slot.stored_shape())
            && let Some(matrix) = checkpoint.packed(&name)?
        {
            return Ok(Some(LoadedValue::Packed(matrix)));
        }
        let stored = checkpoint.read_shaped(&name, &slot.stored_shape())?;
        let stored = if slot.transposed {
            transpose(&stored, slot.shape[1], slot.shape[0])
        } else {
            stored
        };
        Ok::<_, ModelError>(Some(LoadedValue::Dense(
            TensorData::new(stored, slot.shape.clone()),
            dtype(path),
        )))
    })?;
    Ok((model, names))
}

/// `model` with new values from `seed` for the tensors in `names`, which are those that [`read`] named.
pub(crate) fn renew<M: Module>(
    model: M,
    names: &[String],
    config: &(impl CheckpointLayout + ?Sized),
    seed: u64,
) -> Result<M, ModelError> {
    let slots = slots(&model, config);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut slots = slots.iter();
    // A module is gone through in the same order each time.
    load_each(model, |path| {
        let slot = slots.next();
        let absent = slot.filter(|_| names.contains(&config.stored_name(path)));
        let value = |slot| LoadedValue::Dense(start(slot, config, &mut rng), BaseDtype::F32);
        Ok(absent.map(value))
    })
}

/// Writes `model.safetensors` and `config.json` into `folder`, which is made if it does not exist.
///
/// # Errors
/// If a value is not finite, or would not be in this precision, or a file cannot be written.
pub(crate) fn write<M: Module>(
    model: &M,
    dtype: StoredDtype,
    folder: &Path,
    config: &(impl CheckpointLayout + ?Sized),
) -> Result<(), ModelError> {
    let tensors = stored_tensors(model, config);
    let path = folder.join("model.safetensors");
    check_values(
        &path,
        &dtype.to_string(),
        |value| dtype.holds(value),
        &tensors,
    )?;
    create_folder(folder)?;
    write_checkpoint_in(dtype, &path, tensors)?;
    let config = with_dtype(config.to_json(), dtype);
    write_atomically(&folder.join(CONFIG_FILE), config.as_bytes())
}

/// The tensors of a model by Hugging Face's names and in their layout, each to be made when it is asked for.
pub(crate) fn stored_tensors<'a, M: Module>(
    model: &'a M,
    config: &(impl CheckpointLayout + ?Sized),
) -> Vec<NamedTensor<'a>> {
    let slots = slots(model, config).into_iter();
    let named = slots.map(|slot| {
        let (name, shape) = (config.stored_name(&slot.path), slot.stored_shape());
        let make = move || {
            let mut found = state(model, |path, _| path == slot.path);
            let data = found.remove(&slot.path).map(TensorData::convert::<f32>);
            let values: Vec<f32> = data
                .and_then(|data| data.try_to_vec().ok())
                .unwrap_or_default();
            match slot.transposed {
                true => transpose(&values, slot.shape[0], slot.shape[1]),
                false => values,
            }
        };
        (name, shape, TensorValues::Made(Box::new(make)))
    });
    named.collect()
}

/// Refuses tensors with values that are not finite, or would not be in this precision.
pub(crate) fn check_values(
    path: &Path,
    precision: &str,
    holds: impl Fn(f32) -> bool,
    tensors: &[NamedTensor<'_>],
) -> Result<(), ModelError> {
    for (name, _, values) in tensors {
        let values = values.get();
        let (path, name) = (path.to_path_buf(), name.clone());
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ModelError::NotFinite { path, name });
        }
        if !values.iter().all(|value| holds(*value)) {
            let precision = precision.to_string();
            return Err(ModelError::TooLarge {
                path,
                name,
                precision,
            });
        }
    }
    Ok(())
}

/// A config.json that names this precision, if it is not the usual one.
fn with_dtype(json: String, dtype: StoredDtype) -> String {
    const FIELDS: [&str; 2] = ["dtype", "torch_dtype"];
    if dtype == StoredDtype::F32 {
        return json;
    }
    let Ok(mut map) = serde_json::from_str::<serde_json::Map<String, Value>>(&json) else {
        return json;
    };
    let named = FIELDS.into_iter().filter(|field| map.contains_key(*field));
    let mut named: Vec<&str> = named.collect();
    if named.is_empty() {
        named.push("torch_dtype");
    }
    for field in named {
        map.insert(field.to_string(), Value::from(dtype.torch_name()));
    }
    format!("{:#}\n", Value::Object(map))
}

/// `[rows, columns]` to `[columns, rows]`.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    // Blocks, so that neither side is read or written a cache line for one value.
    const BLOCK: usize = 32;
    let mut out = vec![0.0; values.len()];
    for row_block in (0..rows).step_by(BLOCK) {
        for column_block in (0..columns).step_by(BLOCK) {
            for row in row_block..(row_block + BLOCK).min(rows) {
                for column in column_block..(column_block + BLOCK).min(columns) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_changes_nothing() {
        let values: Vec<f32> = (0..35 * 67).map(|v| v as f32).collect();
        let once = transpose(&values, 35, 67);
        assert_eq!(once[1], values[67]);
        assert_eq!(transpose(&once, 67, 35), values);
    }
}
