//! PEFT's AdaLoRA adapters: the fields of their configuration, and the rows that are left when ranks are pruned.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use mtlora_core::{AdaLora, AdaLoraSchedule, AdapterMethod, AdapterValues, Factor};
use serde_json::{Map, Value, json};

use super::config::AdapterConfig;
use super::error::AdapterError;
use super::keys::{split, without_prefix};

/// The fields that only PEFT's `AdaLoraConfig` has.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaLoraFields {
    /// The rank of every module before pruning, from which the scale is computed.
    pub init_r: usize,
    /// When and how much was pruned. What happens in the final phase is not in PEFT's files.
    pub schedule: AdaLoraSchedule,
    /// The number of steps of the training, which PEFT demands; `None` where it is not known.
    pub total_step: Option<usize>,
    /// Which of the `init_r` rows of each module are left, by the module's name. Modules that are not named have all.
    pub rank_pattern: BTreeMap<String, Vec<bool>>,
}

impl AdaLoraFields {
    /// The fields of an adapter of this rank of which nothing else is known.
    pub fn new(init_r: usize) -> Self {
        Self {
            init_r,
            schedule: AdaLoraSchedule::default(),
            total_step: None,
            rank_pattern: BTreeMap::new(),
        }
    }

    /// The number of rows that a module has in the file.
    pub(super) fn rank(&self, module: &str) -> usize {
        match self.rank_pattern.get(module) {
            Some(pattern) => pattern.iter().filter(|kept| **kept).count(),
            None => self.init_r,
        }
    }

    /// Sets PEFT's fields.
    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let AdaLoraSchedule {
            target_rank,
            initial_steps,
            final_steps,
            interval,
            sensitivity_decay,
            uncertainty_decay,
            penalty,
            final_phase: _,
        } = self.schedule;
        // PEFT reads no configuration whose steps are not more than those at the start and at the end.
        let least = initial_steps.saturating_add(final_steps).saturating_add(1);
        let pattern = self.rank_pattern.iter();
        let pattern: Map<_, _> = pattern
            .map(|(module, kept)| (format!("{module}.{}", key_of_e()), json!(kept)))
            .collect();
        let pattern = if pattern.is_empty() {
            Value::Null
        } else {
            Value::Object(pattern)
        };
        for (field, value) in [
            ("init_r", json!(self.init_r)),
            ("target_r", json!(target_rank)),
            ("tinit", json!(initial_steps)),
            ("tfinal", json!(final_steps)),
            ("deltaT", json!(interval)),
            ("beta1", json!(sensitivity_decay)),
            ("beta2", json!(uncertainty_decay)),
            ("orth_reg_weight", json!(penalty)),
            ("total_step", json!(self.total_step.unwrap_or(least))),
            ("rank_pattern", pattern),
        ] {
            map.insert(field.to_string(), value);
        }
    }
}

/// The key of `e`, by which PEFT names a module in `rank_pattern`.
pub(super) fn key_of_e() -> &'static str {
    AdapterMethod::from(AdaLora)
        .factor("e")
        .map_or("", |factor| factor.key)
}

/// The tensors of an AdaLoRA adapter as PEFT writes them: without the rows of `A` and `e` and the columns of `B` that are
/// pruned, which the configuration then names. An adapter that was never trained, whose `e` are all zero, stays whole.
pub(super) fn cut(
    config: &AdapterConfig,
    tensors: Vec<(String, TensorData)>,
) -> (AdapterConfig, Vec<(String, TensorData)>) {
    let mut config = config.clone();
    let Some(fields) = &mut config.adalora else {
        return (config, tensors);
    };
    let mut left: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (key, data) in &tensors {
        if let Some((module, factor)) = factor_of(key)
            && factor.name == "e"
        {
            left.insert(module, data.iter::<f32>().map(|e| e != 0.0).collect());
        }
    }
    if !left.values().flatten().any(|kept| *kept) {
        return (config, tensors);
    }
    for (module, kept) in &left {
        let known = fields.rank_pattern.get(module);
        let pattern = pattern(fields.init_r, known, kept);
        fields.rank_pattern.insert(module.clone(), pattern);
    }
    let tensors = tensors.into_iter().map(|(key, data)| {
        let found = factor_of(&key).and_then(|(module, factor)| Some((left.get(&module)?, factor)));
        match found {
            Some((kept, factor)) => {
                let data = rows_or_columns(&data, kept, factor.name == "b");
                (key, data)
            }
            None => (key, data),
        }
    });
    let tensors = tensors.collect();
    (config, tensors)
}

/// The module and the factor of AdaLoRA that a key names.
fn factor_of(key: &str) -> Option<(String, &'static Factor)> {
    let found = split(without_prefix(key))?;
    let factor = AdapterMethod::from(AdaLora).factor(found.factor.name)?;
    Some((found.module.to_string(), factor))
}

/// Which of the `init_r` rows are left: `kept` says it of the rows that are there, and `known` which those are.
fn pattern(init_r: usize, known: Option<&Vec<bool>>, kept: &[bool]) -> Vec<bool> {
    let there = |pattern: &&Vec<bool>| pattern.iter().filter(|kept| **kept).count() == kept.len();
    let mut rest = kept.iter().copied();
    match known.filter(there) {
        Some(pattern) => pattern
            .iter()
            .map(|there| *there && rest.next().unwrap_or(false))
            .collect(),
        None => {
            let missing = init_r.saturating_sub(kept.len());
            rest.chain(std::iter::repeat_n(false, missing)).collect()
        }
    }
}

/// The rows (or columns) of a matrix that are kept.
fn rows_or_columns(matrix: &TensorData, kept: &[bool], columns: bool) -> TensorData {
    let shape = matrix.shape().to_vec();
    let [rows, width] = [0, 1].map(|side| shape.get(side).copied().unwrap_or(1));
    let is_kept = |index: usize| kept.get(index).copied().unwrap_or(true);
    let values = matrix.iter::<f32>().enumerate();
    let values: Vec<f32> = values
        .filter(|(at, _)| {
            let (row, column) = (at / width.max(1), at % width.max(1));
            is_kept(if columns { column } else { row })
        })
        .map(|(_, value)| value)
        .collect();
    let count = |side: usize| (0..side).filter(|index| is_kept(*index)).count();
    let shape = if columns {
        [rows, count(width)]
    } else {
        [count(rows), width]
    };
    TensorData::new(values, shape)
}

/// Which rows of `A` and `e`, and which columns of `B`, a folder has.
#[derive(Default)]
pub(super) struct Rows(BTreeMap<String, Vec<bool>>);

impl Rows {
    /// The rows in a folder.
    pub(super) fn of_folder(folder: &Path) -> Result<Self, AdapterError> {
        let fields = AdapterConfig::from_folder(folder)?.adalora;
        Ok(Self(
            fields.map_or_else(BTreeMap::new, |fields| fields.rank_pattern),
        ))
    }

    /// The pattern of a factor, and the side that it is about; `None` for tensors that are whole.
    fn of(&self, key: &str) -> Option<(&[bool], usize)> {
        let (module, factor) = factor_of(key)?;
        Some((self.0.get(&module)?, usize::from(factor.name == "b")))
    }

    /// The shape of a tensor of this shape in the folder.
    pub(super) fn shape_left(&self, key: &str, mut shape: Vec<usize>) -> Vec<usize> {
        if let Some((kept, side)) = self.of(key)
            && let Some(size) = shape.get_mut(side)
        {
            *size = kept.iter().take(*size).filter(|kept| **kept).count();
        }
        shape
    }

    /// A tensor of the folder with zeros for what it lacks of this shape.
    pub(super) fn restored(&self, key: &str, left: Vec<f32>, whole: &[usize]) -> Vec<f32> {
        let (Some((kept, side)), [rows, columns]) = (self.of(key), whole) else {
            return left;
        };
        let is_kept = |index: usize| kept.get(index).copied().unwrap_or(false);
        let mut left = left.into_iter();
        let places = (0..*rows).flat_map(|row| (0..*columns).map(move |column| [row, column]));
        let values = places.map(|place| match is_kept(place[side]) {
            true => left.next().unwrap_or(0.0),
            false => 0.0,
        });
        values.collect()
    }
}

/// A module of which nothing is left keeps one triplet, which is zero, because a tensor cannot be empty on every device.
pub(super) fn not_empty(mut values: AdapterValues) -> AdapterValues {
    if values.rank() > 0 {
        return values;
    }
    let side = |data: &TensorData, at: usize| data.shape().get(at).copied().unwrap_or(0);
    values.a = TensorData::zeros::<f32, _>([1, side(&values.a, 1)]);
    values.b = TensorData::zeros::<f32, _>([side(&values.b, 0), 1]);
    values
        .further
        .insert("e", TensorData::zeros::<f32, _>([1, 1]));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_the_first_rank_however_often_rows_are_cut() {
        let once = pattern(4, None, &[true, false, true, true]);
        assert_eq!(once, [true, false, true, true]);
        let again = pattern(4, Some(&once), &[true, true, false]);
        assert_eq!(again, [true, false, true, false]);
        assert_eq!(pattern(4, Some(&once), &[false]), [false; 4]);
        assert_eq!(pattern(4, None, &[true, true]), [true, true, false, false]);
    }

    #[test]
    fn rows_that_were_cut_come_back_as_zeros() {
        let matrix = TensorData::from([[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]]);
        let kept = vec![true, false, true];
        let rows = Rows(BTreeMap::from([("q".to_string(), kept.clone())]));
        let left = rows_or_columns(&matrix, &kept, false);
        assert_eq!(left, TensorData::from([[1.0f32, 2.0], [5.0, 6.0]]));
        let key = "base_model.model.q.lora_A";
        assert_eq!(rows.shape_left(key, vec![3, 2]), [2, 2]);
        let whole = rows.restored(key, left.iter::<f32>().collect(), &[3, 2]);
        assert_eq!(whole, [1.0, 2.0, 0.0, 0.0, 5.0, 6.0]);
        let columns = rows_or_columns(&TensorData::from([[1.0f32, 2.0, 3.0]]), &kept, true);
        assert_eq!(columns, TensorData::from([[1.0f32, 3.0]]));
        let whole = rows.restored("q.lora_B", columns.iter::<f32>().collect(), &[1, 3]);
        assert_eq!(whole, [1.0, 0.0, 3.0]);
        assert_eq!(rows.shape_left("v.lora_A", vec![3, 2]), [3, 2]);
    }
}
