//! The state of an optimizer, by parameter paths.
//!
//! Burn stores it by parameter ids, which differ each time a model is created. Its record in the burnpack format is
//! the only way to read and write the state.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::tensor::TensorData;
use burn_pack::{Reader, Scalar, Writer};
use mtlora_core::{State, each_parameter};

/// Burn's name for the rank of a parameter. It is not stored, because the tensors have the rank, too.
const RANK: &str = "__rank";
/// Separates a parameter's path from the name of the stored value.
const SEPARATOR: char = '/';

/// The moments and step counters of an optimizer, under names of the form `path/name`, such as
/// `classifier.out_proj.bias/momentum.moment_1`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// The moments.
    pub tensors: State,
    /// The step counters.
    pub counters: BTreeMap<String, u64>,
}

/// The reason why an optimizer's state cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerStateError {
    /// Burn's record of the state cannot be read or written.
    #[error("the optimizer's state cannot be converted: {0}")]
    Record(String),
    /// The state has a parameter that the model does not have.
    #[error("the optimizer's state has `{name}`, but the model has no such parameter")]
    Unknown {
        /// The name of the value, as in [`OptimizerState`].
        name: String,
    },
}

fn record(error: impl std::fmt::Display) -> OptimizerStateError {
    OptimizerStateError::Record(error.to_string())
}

impl OptimizerState {
    /// Reads the state of `optimizer`.
    ///
    /// # Errors
    /// When the state contains a value that is neither a tensor nor a counter.
    pub fn of(optimizer: &ModuleOptimizer) -> Result<Self, OptimizerStateError> {
        let reader = Reader::from_bytes(optimizer.into_bytes().map_err(record)?).map_err(record)?;
        let paths = reader.metadata().clone();
        let name = |key: &str| -> Result<String, OptimizerStateError> {
            let (id, name) = key.split_once('.').unwrap_or((key, ""));
            match paths.get(id) {
                Some(path) => Ok(format!("{path}{SEPARATOR}{name}")),
                None => Err(record(format_args!(
                    "`{key}` belongs to a parameter without a path"
                ))),
            }
        };
        let mut state = Self::default();
        for (key, scalar) in reader.scalars() {
            if !key.ends_with(RANK) {
                let value = u64::try_from(*scalar)
                    .map_err(|_| record(format_args!("`{key}` is not a counter")))?;
                state.counters.insert(name(key)?, value);
            }
        }
        for tensor in reader.into_tensors().map_err(record)? {
            let (key, dtype, shape, _, bytes) = tensor.into_parts().map_err(record)?;
            let data = TensorData::from_bytes(bytes, shape, dtype);
            state.tensors.insert(name(&key)?, data);
        }
        Ok(state)
    }

    /// Returns `optimizer` with this state for the parameters of `model`. The optimizer must have the same
    /// configuration as the one that the state was read from.
    ///
    /// # Errors
    /// When the model lacks one of the parameters.
    pub fn restore<M: Module>(
        self,
        optimizer: ModuleOptimizer,
        model: &M,
    ) -> Result<ModuleOptimizer, OptimizerStateError> {
        let mut ids = BTreeMap::new();
        each_parameter(model, |parameter| {
            ids.insert(parameter.path.to_string(), parameter.id().val());
        });
        let place = |key: &str| {
            let (path, name) = key.split_once(SEPARATOR).unwrap_or((key, ""));
            match ids.get(path) {
                Some(id) => Ok((*id, format!("{id}.{name}"))),
                None => Err(OptimizerStateError::Unknown {
                    name: key.to_string(),
                }),
            }
        };
        let mut tensors = Vec::new();
        for (key, data) in self.tensors {
            let (id, name) = place(&key)?;
            let (bytes, shape, dtype) = data.into_parts();
            tensors.push(burn_pack::Tensor::new(name, dtype, shape, Some(id), bytes));
        }
        let mut writer = Writer::new(tensors);
        for (key, value) in self.counters {
            let (_, name) = place(&key)?;
            writer = writer.with_scalar(&name, Scalar::from(value));
        }
        for (path, id) in &ids {
            // Burn assigns a parameter to one of the optimizer's groups by its path.
            writer = writer.with_metadata(&id.to_string(), path);
        }
        let bytes = writer.into_bytes().map_err(record)?;
        let read = OptimizerRecord::from_bytes(bytes).map_err(record)?;
        Ok(optimizer.load_record(read))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Tensor};
    use mtlora_core::{load_state, state};

    use super::*;
    use crate::training::optimizer::adamw::{adamw, adamw_for};
    use crate::training::optimizer::gradient_factor::GradientFactor;
    use crate::training::options::TrainOptions;

    fn step(model: Linear, optimizer: &mut ModuleOptimizer, device: &Device) -> Linear {
        let x = Tensor::<2>::from_floats([[1.0, 2.0, 3.0, 4.0]], device);
        let loss = model.forward(x).square().mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        optimizer.step(1e-2, model, gradients)
    }

    #[test]
    fn another_model_with_the_same_values_continues_bit_for_bit() {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let mut optimizer = adamw(0.1);
        let mut model: Linear = LinearConfig::new(4, 6).init(&device);
        for _ in 0..3 {
            model = step(model, &mut optimizer, &device);
        }
        let all = |model: &Linear| state(model, |_, _| true);
        let kept = OptimizerState::of(&optimizer).unwrap();
        assert_eq!(
            kept.counters.iter().collect::<Vec<_>>(),
            [
                (&"bias/momentum.time".to_string(), &3),
                (&"weight/momentum.time".to_string(), &3)
            ]
        );
        // A model in another process has other parameter ids but the same values.
        let other: Linear = LinearConfig::new(4, 6).init(&device);
        let other = load_state(other, all(&model)).unwrap();
        let options = TrainOptions {
            weight_decay: 0.1,
            ..TrainOptions::default()
        };
        let resumed = adamw_for(&options, Some(&device), &GradientFactor::default());
        let mut resumed = kept.clone().restore(resumed, &other).unwrap();
        assert_eq!(OptimizerState::of(&resumed).unwrap(), kept);
        let mut other = other;
        for _ in 0..3 {
            model = step(model, &mut optimizer, &device);
            other = step(other, &mut resumed, &device);
        }
        assert_eq!(all(&model), all(&other));
    }

    #[test]
    fn a_parameter_that_is_not_there_is_named() {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let model: Linear = LinearConfig::new(4, 6).init(&device);
        let mut kept = OptimizerState::default();
        kept.counters.insert("head.bias/momentum.time".into(), 3);
        let error = kept.restore(adamw(0.1), &model).err().unwrap();
        assert!(error.to_string().contains("`head.bias/momentum.time`"));
    }
}
