use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Shape, Tensor, TensorData};

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

/// The values of every parameter whose path `wanted` accepts; the second argument tells whether it
/// trains.
pub fn state<M: Module>(module: &M, wanted: impl Fn(&str, bool) -> bool) -> State {
    let mut collect = Collect {
        path: Vec::new(),
        state: State::new(),
        wanted,
    };
    module.visit(&mut collect);
    collect.state
}

/// `module` with the values of `state` in place of its own; every one must find its parameter.
///
/// # Errors
/// When a path is not there or a shape differs. `module` is dropped then.
pub fn load_state<M: Module>(module: M, state: State) -> Result<M, StateError> {
    let mut load = Load {
        path: Vec::new(),
        state,
        error: None,
    };
    let module = module.map(&mut load);
    match (load.error, load.state.into_keys().next()) {
        (Some(error), _) => Err(error),
        (None, Some(path)) => Err(StateError::Unknown { path }),
        (None, None) => Ok(module),
    }
}

struct Collect<F> {
    path: Vec<String>,
    state: State,
    wanted: F,
}

impl<F: Fn(&str, bool) -> bool> ModuleVisitor for Collect<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let value = param.base();
        if (self.wanted)(&path, value.is_require_grad()) {
            self.state.insert(path, value.into_data());
        }
    }
}

struct Load {
    path: Vec<String>,
    state: State,
    error: Option<StateError>,
}

impl ModuleMapper for Load {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let Some(data) = self.state.remove(&path) else {
            return param;
        };
        let expected = param.lazy_shape();
        if Shape::from(data.shape().to_vec()) != expected {
            self.error.get_or_insert(StateError::Shape {
                path,
                expected: expected.to_vec(),
                found: data.shape().to_vec(),
            });
            return param;
        }
        param.map(|old| {
            Tensor::from_data(data, &old.device()).set_require_grad(old.is_require_grad())
        })
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
