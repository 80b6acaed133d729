use std::collections::BTreeMap;

use burn::module::Module;
use mtlora_core::{each_parameter, factor_path};

/// The trainable parameters of a model: their paths and shapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trains(BTreeMap<String, Vec<usize>>);

/// The numbers of values in an adapter's factors; each value costs one multiplication and one addition per token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Factors {
    pub a: f64,
    pub b: f64,
    /// The number of values in `T`; 0 if it is the identity.
    pub t: f64,
}

impl Trains {
    /// The trainable parameters of `model`, after a [`Method`](crate::Method) has prepared it.
    pub fn of<M: Module>(model: &M) -> Self {
        let mut trains = BTreeMap::new();
        each_parameter(model, |parameter| {
            if parameter.trains() {
                let shape = parameter.shape().to_vec();
                trains.insert(parameter.path.to_string(), shape);
            }
        });
        Self(trains)
    }

    /// The total number of values.
    pub fn parameters(&self) -> usize {
        self.0.values().map(|shape| entries(shape)).sum()
    }

    /// Whether the module's weight is trainable.
    pub(super) fn weight(&self, module: &str) -> bool {
        self.0.contains_key(&format!("{module}.weight"))
    }

    /// Whether any parameter whose path begins with this prefix is trainable.
    pub(super) fn any(&self, prefix: &str) -> bool {
        self.0.keys().any(|path| path.starts_with(prefix))
    }

    /// The adapter on the module's weight.
    pub(super) fn adapter(&self, module: &str) -> Option<Factors> {
        let factor = |name: &str| self.0.get(&factor_path(module, name));
        let (a, b) = (factor("a")?, factor("b")?);
        // With further factors there is a `T`, a square matrix whose side is the height of `A`.
        let prefix = factor_path(module, "");
        let own = self.0.keys().filter(|path| path.starts_with(&prefix));
        let rank = a.first().copied().unwrap_or(0) as f64;
        Some(Factors {
            a: entries(a) as f64,
            b: entries(b) as f64,
            t: if own.count() > 2 { rank * rank } else { 0.0 },
        })
    }
}

fn entries(shape: &[usize]) -> usize {
    shape.iter().product()
}
