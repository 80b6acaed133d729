//! What an adapter method does while a model trains.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

use crate::adapter::methods::definition::AdapterMethod;
use crate::adapter::module::Adapter;
use crate::adapter::survey::parameter_of;
use crate::state::State;

/// The adapters of a model, by the path of the module whose weight each is on, as
/// [`attached`](crate::attached) finds them.
pub type Adapters = BTreeMap<String, Adapter>;

/// New values of factors, by the parameters' paths ([`factor_path`]), on a device without autodiff.
pub type FactorChanges = BTreeMap<String, Tensor<2>>;

/// What an adapter method does in each step of a training, beyond the optimizer's step. AdaLoRA is a method that does.
///
/// A training loop calls, in each step: [`penalty`](Self::penalty) before the backward pass,
/// [`after_backward`](Self::after_backward) before the optimizer's step, and [`after_step`](Self::after_step) after it,
/// whose changes it makes with [`change_factors`]. It calls [`begin`](Self::begin) once before the first step, keeps
/// [`state`](Self::state) with what else a resumed training needs, and gives it back to
/// [`load_state`](Self::load_state).
pub trait TrainingHooks {
    /// The method that these hooks belong to.
    fn method(&self) -> AdapterMethod;

    /// Checks that a training of this many steps suits the method, and takes note of the adapters.
    ///
    /// # Errors
    /// When it does not.
    fn begin(&mut self, adapters: &Adapters, steps: usize) -> Result<(), HookError>;

    /// A term of the loss: `[1]`, with its graph. It is added to the loss of each step once, whatever the loss is
    /// divided by.
    fn penalty(&self, _adapters: &Adapters) -> Option<Tensor<1>> {
        None
    }

    /// Takes note of the gradients with which step number `step` (from 1) is about to be made, after clipping.
    fn after_backward(&mut self, _step: usize, _adapters: &Adapters, _gradients: &GradientsParams) {
    }

    /// What changes in the factors after the optimizer's step number `step` (from 1).
    fn after_step(&mut self, _step: usize, _adapters: &Adapters) -> FactorChanges {
        FactorChanges::new()
    }

    /// The rank of all adapters together that is left after step number `step` (from 1), if the method has a budget of it.
    fn rank_budget(&self, _step: usize) -> Option<usize> {
        None
    }

    /// Whether the adapters have their final form after step number `step` (from 1): AdaLoRA's have the target rank then.
    /// Earlier states are never kept as the best one, however good their scores are.
    fn is_settled(&self, _step: usize) -> bool {
        true
    }

    /// All that the hooks need to continue after a step, by name, in 32-bit floats.
    fn state(&self) -> State {
        State::new()
    }

    /// Continues from a [`state`](Self::state).
    ///
    /// # Errors
    /// When it is not a state of a training with these adapters.
    fn load_state(&mut self, state: State, _adapters: &Adapters) -> Result<(), HookError> {
        match state.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(HookError::Unknown {
                method: self.method(),
                name,
            }),
        }
    }
}

/// Why a method cannot train, or cannot continue.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum HookError {
    /// The model's adapters are of another method.
    #[error(
        "the training hooks are those of method {hooks}, but {path} has an adapter of method {found}"
    )]
    Method {
        /// The method of the hooks.
        hooks: AdapterMethod,
        /// The module with the adapter.
        path: String,
        /// The adapter's method.
        found: AdapterMethod,
    },
    /// The method trains only with its hooks.
    #[error(
        "{path} has an adapter of method {method}, which trains only with its training hooks: pass them to the training"
    )]
    Needed {
        /// The module with the adapter.
        path: String,
        /// The adapter's method.
        method: AdapterMethod,
    },
    /// A setting does not suit the training.
    #[error("{method}: {setting} = {value} does not suit a training of {steps} steps: {wanted}")]
    Setting {
        /// The method.
        method: AdapterMethod,
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// The steps of the training.
        steps: usize,
        /// What it may be.
        wanted: &'static str,
    },
    /// The state has only a part of what the method keeps.
    #[error(
        "method {method}: the state lacks `{name}`: it is incomplete, so resume from another checkpoint"
    )]
    Missing {
        /// The method.
        method: AdapterMethod,
        /// The missing tensor.
        name: String,
    },
    /// The state has something that the method does not keep, or that belongs to no adapter of the model.
    #[error(
        "method {method}: the state has `{name}`, for which the model has no place: resume with the model and the settings of the run"
    )]
    Unknown {
        /// The method.
        method: AdapterMethod,
        /// The name.
        name: String,
    },
    /// A value of the state has another shape than the model's factor.
    #[error(
        "method {method}: the state's `{name}` has shape {found:?}, and the model's factor has {expected:?}"
    )]
    Shape {
        /// The method.
        method: AdapterMethod,
        /// The name.
        name: String,
        /// The factor's shape.
        expected: Vec<usize>,
        /// The value's shape.
        found: Vec<usize>,
    },
}

/// Checks that the adapters of a model train with these hooks, or without any.
///
/// # Errors
/// When the hooks are of another method, or a method that needs hooks has none.
pub fn check_hooks(
    adapters: &Adapters,
    hooks: Option<&dyn TrainingHooks>,
) -> Result<(), HookError> {
    for (path, adapter) in adapters {
        let (path, method) = (path.clone(), adapter.form.method);
        match hooks.map(TrainingHooks::method) {
            Some(hooks) if hooks != method => {
                return Err(HookError::Method {
                    hooks,
                    path,
                    found: method,
                });
            }
            None if method.needs_hooks() => return Err(HookError::Needed { path, method }),
            _ => {}
        }
    }
    Ok(())
}

/// The path of the parameter that is the factor `name` of the adapter on the module at `module`.
pub fn factor_path(module: &str, name: &str) -> String {
    format!("{}.mtlora.{name}", parameter_of(module))
}

/// `module` with the factors at these paths changed. Paths without a parameter change nothing.
pub fn change_factors<M: Module>(module: M, changes: FactorChanges) -> M {
    if changes.is_empty() {
        return module;
    }
    module.map(&mut Change {
        path: Vec::new(),
        changes,
    })
}

/// A state's value as a factor's, on the factor's device without autodiff.
///
/// # Errors
/// When it has another shape than the factor.
pub(super) fn restored(
    method: AdapterMethod,
    name: &str,
    data: TensorData,
    factor: &Param<Tensor<2>>,
) -> Result<Tensor<2>, HookError> {
    let (expected, found) = (factor.lazy_shape().to_vec(), data.shape().to_vec());
    if expected != found {
        return Err(HookError::Shape {
            method,
            name: name.to_string(),
            expected,
            found,
        });
    }
    Ok(Tensor::from_data(data, &factor.lazy_device().inner()))
}

struct Change {
    path: Vec<String>,
    changes: FactorChanges,
}

impl ModuleMapper for Change {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(value) = self.changes.remove(&self.path.join(".")) else {
            return param;
        };
        let id = param.id;
        let value: Tensor<D> = value.reshape(param.lazy_shape());
        // Keeps the identity, by which the optimizer knows the parameter, and whether it trains.
        param.transform_for_load(Tensor::from_inner(value), id)
    }
}
