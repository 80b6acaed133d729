//! MTLoRA adapters for [Burn](burn) modules.
//!
//! MTLoRA (arXiv 2403.07440) puts a small learnable matrix `T` into LoRA's update of a frozen
//! linear map: `y = W x + b + scale * B T A x`. This crate holds the method and nothing else: no
//! model, no text, no data set.
//!
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use mtlora_core::{MtLoraConfig, Structure, Targets, adapted_linear};
//!
//! # fn main() -> Result<(), mtlora_core::AttachError> {
//! let device = Device::flex().autodiff();
//! let layer: Linear = LinearConfig::new(16, 4).init(&device);
//! let layer = MtLoraConfig::new(Structure::Shim)
//!     .with_rank(2)
//!     .with_target_modules(Targets::AllLinear)
//!     .attach(layer)?;
//!
//! let x = Tensor::<2>::ones([3, 16], &device);
//! // One attachment, two ways through: on the activations, and Burn's own (base + dense update).
//! let y = adapted_linear(&layer, x.clone());
//! let dense = layer.forward(x);
//! # let _ = (y, dense);
//! # Ok(())
//! # }
//! ```

mod adapter;
mod adapter_form;
mod adapter_values;
mod attach;
mod base_dtype;
mod combine;
mod contexts;
mod devices;
mod fold;
mod init;
mod inspection;
mod layers;
mod linalg;
mod low_rank;
pub mod ops;
mod random;
mod segments;
mod spectrum;
mod state;
mod structure;
mod svd;
mod targets;

pub use adapter::Adapter;
pub use adapter_form::AdapterForm;
pub use adapter_values::{AdapterValues, adapters};
pub use attach::{
    AttachError, FusedProjections, MtLoraConfig, attach_adapters, trainable_parameters,
};
pub use base_dtype::{BaseDtype, BaseDtypeError};
pub use combine::{Combined, combine};
pub use contexts::Contexts;
pub use devices::{NamedDevice, NoDevice, device, devices};
pub use fold::Fold;
pub use init::Init;
pub use inspection::{InspectedLayer, Inspection, LayerError, inspect};
pub use layers::{
    adapted_embedding, adapted_linear, cached_attention, dropout, fused_segment_attention, gelu,
    layer_norm, segment_attention, tied_cross_entropy, tied_logits,
};
pub use linalg::{Eigenvalue, MatrixError};
pub use low_rank::{LowRank, Truncation};
pub use ops::{Gelu, Saved};
pub use random::{random_state, seed, set_random_state};
pub use segments::{Run, Segments, SegmentsError};
pub use spectrum::{Spectrum, TransformSpectrum, UpdateSpectrum, effective_rank, weight_norms};
pub use state::{State, StateError, load_each, load_state, state};
pub use structure::Structure;
pub use targets::Targets;
