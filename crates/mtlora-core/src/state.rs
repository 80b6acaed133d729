use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use crate::base_dtype::BaseDtype;
use crate::packed::{self, PackedMatrix};
use crate::visit::{Container, each_parameter};

/// Parameter values by path, as in `encoder.layer.0.query.weight.mtlora.a`.
pub type State = BTreeMap<String, TensorData>;

/// Why values do not fit a module.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum StateError {
    /// The module has no such parameter.
    #[error("the model has no parameter `{path}`")]
    Unknown {
        /// The parameter's path.
        path: String,
    },
    /// The parameter has another shape.
    #[error("parameter `{path}` has shape {expected:?}, the values have {found:?}")]
    Shape {
        /// The parameter's path.
        path: String,
        /// The module's shape.
        expected: Vec<usize>,
        /// The values' shape.
        found: Vec<usize>,
    },
}

/// The values of all parameters that `wanted` accepts. It is called with each parameter's path and whether the
/// parameter is trainable. After [`Module::valid`](burn::module::Module::valid), and so in the model that a training returns, those
/// that were trainable still count as such.
pub fn state<M: Module>(module: &M, wanted: impl Fn(&str, bool) -> bool) -> State {
    let mut state = State::new();
    each_parameter(module, |parameter| {
        if wanted(parameter.path, parameter.trains()) {
            state.insert(parameter.path.to_string(), parameter.data());
        }
    });
    state
}

/// `module` with the values of `state` in place of its own. Each of them must find its parameter; a parameter without a value in
/// `state` keeps its own.
///
/// # Errors
/// When a path is not there or a shape differs. `module` is dropped then.
pub fn load_state<M: Module>(module: M, mut state: State) -> Result<M, StateError> {
    let module = load_each(module, |path| {
        let data = state.remove(path);
        Ok::<_, StateError>(data.map(|data| LoadedValue::Dense(data, BaseDtype::F32)))
    })?;
    match state.into_keys().next() {
        Some(path) => Err(StateError::Unknown { path }),
        None => Ok(module),
    }
}

/// A parameter's value, for [`load_each`].
#[derive(Clone, Debug)]
pub enum LoadedValue {
    /// All values, and the precision in which a linear layer's or an embedding's weight is kept.
    Dense(TensorData, BaseDtype),
    /// A weight that is packed already: a linear layer's, `[out, in]`, where Burn has `[in, out]`, or an embedding's,
    /// `[vocabulary, width]`.
    Packed(PackedMatrix),
}

impl LoadedValue {
    /// The shape of the parameter of such a module.
    fn shape(&self, container: Container) -> Vec<usize> {
        match self {
            LoadedValue::Dense(data, _) => data.shape().to_vec(),
            LoadedValue::Packed(matrix) => packed::sides_of_parameter(matrix, container).to_vec(),
        }
    }
}

/// `module` with the values that `value` gives for a path in place of its own. Each is made when its
/// turn comes; a linear layer's or an embedding's weight is then kept in the precision that came with
/// it, and frozen where that is less than 32 bits. So no more than one weight at a time is there in
/// full, and a module that was not initialized never is.
///
/// # Errors
/// When a shape differs, or what `value` returns. `module` is dropped then.
pub fn load_each<M: Module, E: From<StateError>>(
    module: M,
    value: impl FnMut(&str) -> Result<Option<LoadedValue>, E>,
) -> Result<M, E> {
    let mut load = Load {
        path: Vec::new(),
        value,
        error: None,
    };
    let module = module.map(&mut load);
    match load.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

struct Load<F, E> {
    path: Vec<(String, Container)>,
    value: F,
    error: Option<E>,
}

impl<F, E: From<StateError>> ModuleMapper for Load<F, E>
where
    F: FnMut(&str) -> Result<Option<LoadedValue>, E>,
{
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path
            .push((name.to_string(), Container::of(container_type)));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let names: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        let path = names.join(".");
        let value = match (self.value)(&path) {
            Ok(Some(value)) => value,
            Ok(None) => return param,
            Err(error) => {
                self.error = Some(error);
                return param;
            }
        };
        let container = self.path.last().map_or(Container::Other, |(_, kind)| *kind);
        let (expected, found) = (param.lazy_shape(), value.shape(container));
        if found != expected.to_vec() {
            let error = StateError::Shape {
                path,
                expected: expected.to_vec(),
                found,
            };
            self.error = Some(error.into());
            return param;
        }
        // Neither asks for the parameter's own value, which may not have been made yet.
        let (id, device) = (param.id, param.lazy_device());
        match value {
            LoadedValue::Dense(data, dtype) if dtype != BaseDtype::F32 && container.is_kept(D) => {
                Param::initialized(id, dtype.put(data, container, &device))
            }
            LoadedValue::Dense(data, _) => {
                param.transform_for_load(Tensor::from_data(data, &device), id)
            }
            LoadedValue::Packed(matrix) => {
                // The number of dimensions was checked with the shape.
                let tensor = packed::to_tensor(matrix, container, &device).into_dispatch();
                Param::initialized(id, Tensor::from_dispatch(tensor))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};

    use crate::{Adapter, MtLoraConfig, Structure};

    fn layer(seed: u64) -> Linear {
        let device = crate::devices()[0].device.clone().autodiff();
        MtLoraConfig::new(Structure::Dtsm)
            .with_rank(2)
            .with_seed(seed)
            .attach(LinearConfig::new(4, 6).init(&device))
            .unwrap()
    }

    #[test]
    fn what_trains_goes_out_and_comes_back() {
        let values = state(&layer(1), |_, trains| trains);
        let paths: Vec<&str> = values.keys().map(String::as_str).collect();
        let expected = ["a", "b", "c", "d"].map(|name| format!("weight.mtlora.{name}"));
        assert_eq!(paths, expected);

        let other = load_state(layer(2), values.clone()).unwrap();
        assert_eq!(state(&other, |_, trains| trains), values);
        assert!(!other.weight.base().is_require_grad());
        assert!(other.weight.reparameterization::<Adapter>().is_some());
    }

    #[test]
    fn what_trained_is_known_after_valid() {
        let layer = layer(1);
        let trained = state(&layer, |_, trains| trains);
        assert_eq!(trained.len(), 4);
        assert_eq!(state(&layer.valid(), |_, trains| trains), trained);
        let counted = crate::trainable_parameters(&layer.valid());
        assert_eq!(counted, crate::trainable_parameters(&layer));
        let frozen = LinearConfig::new(4, 6)
            .init(&crate::devices()[0].device)
            .no_grad();
        assert!(state(&frozen, |_, trains| trains).is_empty());
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        let values =
            |path: &str| State::from([(path.to_string(), TensorData::zeros::<f32, _>([1, 4]))]);
        let error = load_state(layer(1), values("weight.mtlora.a")).unwrap_err();
        assert!(error.to_string().contains("weight.mtlora.a"));
        let error = load_state(layer(1), values("weight.mtlora.e")).unwrap_err();
        assert_eq!(
            error,
            StateError::Unknown {
                path: "weight.mtlora.e".into()
            }
        );
    }
}
