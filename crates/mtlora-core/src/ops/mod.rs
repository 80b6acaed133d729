//! The operations that training spends its time in, as a Burn backend extension.
//!
//! Each has a body from Burn's own operations, which is its definition and what a backend without
//! a kernel runs, and a hand-written backward pass on [`Autodiff`] that saves the least it can.
//! Use them through [`adapted_linear`](crate::adapted_linear) and
//! [`segment_attention`](crate::segment_attention).

// burn-ndarray is deprecated upstream; it stays a second, independent CPU backend to test against.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

mod attention;
mod linear;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, ExtensionType, backend_extension};

use crate::Segments;

/// A tensor that an operation may go without.
#[derive(ExtensionType)]
pub enum Optional<B: Backend> {
    /// The tensor.
    Given(FloatTensor<B>),
    /// None.
    Absent,
}

impl<B: Backend> Optional<B> {
    fn into_option(self) -> Option<FloatTensor<B>> {
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

/// MTLoRA's operations on a backend's tensor primitives.
#[allow(clippy::too_many_arguments)]
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube")
)]
pub trait MtLoraBackend: Backend {
    /// `x W + bias + scale ((z Aᵀ) Tᵀ) Bᵀ`, where `z` is `dropped` if given, else `x`.
    ///
    /// The weight is frozen: no gradient is made for it.
    ///
    /// # Shapes
    /// - `x`, `dropped`: `[tokens, in]`
    /// - `weight`: `[in, out]`, `bias`: `[out]`
    /// - `a`: `[rank, in]`, `t`: `[rank, rank]` (none: the identity), `b`: `[out, rank]`
    /// - output: `[tokens, out]`
    #[fusion(default)]
    fn adapted_linear(
        x: FloatTensor<Self>,
        #[extension_type] dropped: Optional<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Optional<Self>,
        a: FloatTensor<Self>,
        #[extension_type] t: Optional<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let inputs = linear::Inputs {
            x,
            dropped: dropped.into_option(),
            weight,
            bias: bias.into_option(),
            a,
            t: t.into_option(),
            b,
            scale,
        };
        linear::forward::<Self>(inputs).0
    }

    /// `softmax(scale Q Kᵀ) V` within each segment and head; with `causal`, no token sees a later
    /// one. The probabilities are multiplied with `keep` where given (dropout: 0 or `1 / (1 - p)`).
    ///
    /// # Shapes
    /// - `query`, `key`, `value`, output: `[tokens, heads * head_dim]`
    /// - `keep`: `[heads * sum of squared lengths]`, segment after segment, in each head after head
    #[fusion(default)]
    fn segment_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] keep: Optional<Self>,
        segments: Segments,
        heads: usize,
        scale: f64,
        causal: bool,
    ) -> FloatTensor<Self> {
        let inputs = attention::Inputs {
            query,
            key,
            value,
            keep: keep.into_option(),
        };
        let layout = attention::Layout {
            segments,
            heads,
            scale,
            causal,
        };
        attention::forward::<Self>(inputs, &layout)
    }
}

#[cfg(feature = "flex")]
impl MtLoraBackend for burn::backend::Flex {}

#[cfg(feature = "ndarray")]
impl MtLoraBackend for burn::backend::NdArray {}

#[cfg(feature = "cube")]
impl MtLoraBackend for burn::backend::Cube {}

impl<B: Backend + MtLoraBackend, C: CheckpointStrategy> MtLoraBackend for Autodiff<B, C> {
    fn adapted_linear(
        x: FloatTensor<Self>,
        dropped: Optional<Self>,
        weight: FloatTensor<Self>,
        bias: Optional<Self>,
        a: FloatTensor<Self>,
        t: Optional<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        linear::track::<B, C>(linear::Inputs {
            x,
            dropped: dropped.into_option(),
            weight,
            bias: bias.into_option(),
            a,
            t: t.into_option(),
            b,
            scale,
        })
    }

    fn segment_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        keep: Optional<Self>,
        segments: Segments,
        heads: usize,
        scale: f64,
        causal: bool,
    ) -> FloatTensor<Self> {
        let inputs = attention::Inputs {
            query,
            key,
            value,
            keep: keep.into_option(),
        };
        let layout = attention::Layout {
            segments,
            heads,
            scale,
            causal,
        };
        attention::track::<B, C>(inputs, layout)
    }
}
