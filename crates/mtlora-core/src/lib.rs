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
mod analysis;
mod base_dtype;
mod contexts;
mod devices;
mod layers;
mod ops;
mod random;
mod sequence_offsets;
mod state;

pub use adapter::attach::{
    AttachError, FusedProjections, MtLoraConfig, attach_adapters, trainable_parameters,
};
pub use adapter::factors::Adapter;
pub use adapter::fold::Fold;
pub use adapter::form::AdapterForm;
pub use adapter::init::Init;
pub use adapter::structure::Structure;
pub use adapter::targets::Targets;
pub use adapter::values::{AdapterValues, adapters};
pub use analysis::combine::{Combined, combine};
pub use analysis::inspection::{InspectedLayer, Inspection, LayerError, inspect};
pub use analysis::linalg::{Eigenvalue, MatrixError};
pub use analysis::low_rank::{LowRank, Truncation};
pub use analysis::spectrum::{
    Spectrum, TransformSpectrum, UpdateSpectrum, effective_rank, weight_norms,
};
pub use base_dtype::{BaseDtype, BaseDtypeError};
pub use contexts::Contexts;
pub use devices::{NamedDevice, NoDevice, device, devices};
pub use layers::{
    adapted_embedding, adapted_linear, cached_attention, dropout, fused_segment_attention, gelu,
    layer_norm, segment_attention, tied_cross_entropy, tied_logits,
};
pub use ops::{ActivationDtype, Capabilities, Gelu, capabilities, vecmath};
pub use random::{random_state, seed, set_random_state};
pub use sequence_offsets::{EqualLengthRun, SequenceOffsets, SequenceOffsetsError};
pub use state::{State, StateError, load_each, load_state, state};
