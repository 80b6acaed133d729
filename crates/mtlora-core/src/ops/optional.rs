//! Tensors that an operation may go without.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, ExtensionType};

/// A tensor that an operation may go without.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub enum Optional<B: Backend> {
    /// The tensor.
    Given(FloatTensor<B>),
    /// No tensor.
    Absent,
}

impl<B: Backend> Optional<B> {
    pub(super) fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Optional::Given(tensor) => Some(tensor),
            Optional::Absent => None,
        }
    }
}

impl<B: Backend> From<Option<FloatTensor<B>>> for Optional<B> {
    fn from(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Optional::Absent, Optional::Given)
    }
}

/// A tensor of integers that an operation may go without.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cube"))]
pub enum OptionalInt<B: Backend> {
    /// The tensor.
    Given(IntTensor<B>),
    /// No tensor.
    Absent,
}

impl<B: Backend> From<Option<IntTensor<B>>> for OptionalInt<B> {
    fn from(tensor: Option<IntTensor<B>>) -> Self {
        tensor.map_or(OptionalInt::Absent, OptionalInt::Given)
    }
}
