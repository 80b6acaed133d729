use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// What of a model trains: the paths of the parameters, and their shapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trains(BTreeMap<String, Vec<usize>>);

/// An adapter's entries, of which each is one multiplication and one addition for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Factors {
    pub a: f64,
    pub b: f64,
    /// Of `T`; none where it is the identity.
    pub t: f64,
}

impl Trains {
    /// What trains of `model`, once a [`Method`](crate::Method) has prepared it.
    pub fn of<M: Module>(model: &M) -> Self {
        let mut collect = Collect::default();
        model.visit(&mut collect);
        Self(collect.trains)
    }

    /// The number of values.
    pub fn parameters(&self) -> usize {
        self.0.values().map(|shape| entries(shape)).sum()
    }

    /// Whether the module's weight trains.
    pub(super) fn weight(&self, module: &str) -> bool {
        self.0.contains_key(&format!("{module}.weight"))
    }

    /// Whether anything trains whose path begins so.
    pub(super) fn any(&self, prefix: &str) -> bool {
        self.0.keys().any(|path| path.starts_with(prefix))
    }

    /// The adapter on the module's weight.
    pub(super) fn adapter(&self, module: &str) -> Option<Factors> {
        let factor = |name: &str| {
            let shape = self.0.get(&format!("{module}.weight.mtlora.{name}"))?;
            Some(entries(shape) as f64)
        };
        Some(Factors {
            a: factor("a")?,
            b: factor("b")?,
            t: factor("c").unwrap_or_default(),
        })
    }
}

fn entries(shape: &[usize]) -> usize {
    shape.iter().product()
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    trains: BTreeMap<String, Vec<usize>>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.base().is_require_grad() {
            let shape = param.lazy_shape().to_vec();
            self.trains.insert(self.path.join("."), shape);
        }
    }
}
