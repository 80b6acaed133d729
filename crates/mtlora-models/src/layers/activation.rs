//! The nonlinearity between the two maps of a feed-forward block.

use burn::tensor::Tensor;
use burn::tensor::activation::{relu, silu};
use mtlora_core::{ActivationDtype, Gelu, gelu, swiglu};

/// The nonlinearity between the two feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x Phi(x), by the error function: `gelu`.
    GeluErf,
    /// The same, approximated by tanh (Hendrycks & Gimpel, 2016): `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`.
    GeluTanh,
    /// max(x, 0): `relu`.
    Relu,
    /// x sigmoid(x): `silu`, `swish`.
    Silu,
}

impl Activation {
    /// The names that config.json files use.
    pub(crate) const NAMES: [(&'static str, Self); 8] = [
        ("gelu", Self::GeluErf),
        ("gelu_python", Self::GeluErf),
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
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
            Self::Silu => "silu",
        }
    }

    /// The activation of each element: `[tokens, width]` to the same. `saved` says how the backward pass keeps `x`.
    pub fn forward(self, x: Tensor<2>, saved: ActivationDtype) -> Tensor<2> {
        match self {
            Self::GeluErf => gelu(x, Gelu::Erf, saved),
            Self::GeluTanh => gelu(x, Gelu::Tanh, saved),
            Self::Relu => relu(x),
            Self::Silu => silu(x),
        }
    }

    /// The activation of each element of `gate` times that of `up`: both `[tokens, width]`, and so is the output. `saved`
    /// says how the backward pass keeps both.
    pub fn forward_gated(
        self,
        gate: Tensor<2>,
        up: Tensor<2>,
        saved: ActivationDtype,
    ) -> Tensor<2> {
        match self {
            Self::Silu => swiglu(gate, up, saved),
            _ => self.forward(gate, saved) * up,
        }
    }
}
