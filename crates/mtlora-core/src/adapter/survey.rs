//! The weights of a module that can be adapted.

use burn::module::Module;
use burn::tensor::{Device, Shape, Tensor};

use crate::visit::{Container, each_parameter};

/// A weight that can be adapted.
pub(super) struct Weight {
    /// The path of the module that owns the weight.
    pub path: String,
    pub shape: Shape,
    /// Whether the module is a linear layer.
    pub linear: bool,
    /// Whether the weight has a reparameterization already.
    pub adapted: bool,
}

/// Every weight of `module` that can be adapted, in Burn's order.
pub(super) fn survey<M: Module>(module: &M) -> Vec<Weight> {
    let mut weights: Vec<Weight> = Vec::new();
    each_parameter(module, |parameter| {
        // A weight is visited first, and the parameters of its reparameterization after it.
        if let Some(weight) = weights.last_mut() {
            let inside = parameter.path.strip_prefix(&parameter_of(&weight.path));
            weight.adapted |= inside.is_some_and(|rest| rest.starts_with('.'));
        }
        let (path, name) = parameter.split_path();
        let shape = parameter.shape();
        if name == "weight" && shape.num_dims() >= 2 {
            weights.push(Weight {
                path: path.to_string(),
                shape,
                linear: parameter.container == Container::Linear,
                adapted: false,
            });
        }
    });
    weights
}

/// A weight for which an adapter is made.
#[derive(Clone, Copy)]
pub(super) struct Adaptable<'a> {
    pub shape: &'a Shape,
    pub device: &'a Device,
    /// Gives the weight as a matrix, `[out, in]`.
    pub matrix: &'a dyn Fn() -> Tensor<2>,
}

/// Input and output width of a weight as Burn keeps it: `[in, out]`, or `[out, in, k...]`.
pub(super) fn sides(shape: &Shape) -> [usize; 2] {
    match shape.num_dims() {
        2 => [shape[0], shape[1]],
        _ => [shape.num_elements() / shape[0].max(1), shape[0]],
    }
}

/// The path of a module's weight. A bare layer is its own root: it has no path.
pub(super) fn parameter_of(module: &str) -> String {
    if module.is_empty() {
        "weight".to_string()
    } else {
        format!("{module}.weight")
    }
}
