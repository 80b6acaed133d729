//! The nonlinearity between the two maps of a feed-forward block.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use mtlora_core::{ActivationDtype, Gelu, gelu};

/// The nonlinearity between the two feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x Phi(x), by the error function: `gelu`.
    GeluErf,
    /// The same, approximated by tanh (Hendrycks & Gimpel, 2016): `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`.
    GeluTanh,
    /// max(x, 0): `relu`.
    Relu,
}

impl Activation {
    /// The names that config.json files use.
    pub(crate) const NAMES: [(&'static str, Self); 6] = [
        ("gelu", Self::GeluErf),
        ("gelu_python", Self::GeluErf),
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("relu", Self::Relu),
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, activation)| *activation)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GeluErf => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::Relu => "relu",
        }
    }

    /// The activation of each element: `[tokens, width]` to the same. `saved` says how the backward pass keeps `x`.
    pub fn forward(self, x: Tensor<2>, saved: ActivationDtype) -> Tensor<2> {
        match self {
            Self::GeluErf => gelu(x, Gelu::Erf, saved),
            Self::GeluTanh => gelu(x, Gelu::Tanh, saved),
            Self::Relu => relu(x),
        }
    }
}
