//! Low-rank adapters for modules of [Burn](burn): MTLoRA, and LoRA as its simplest case.
//!
//! MTLoRA (arXiv 2403.07440) trains a small update beside the frozen weight of a linear layer,
//! `y = W x + b + (alpha / rank) B T A x`. `A` `[rank, input]` and `B` `[output, rank]` are LoRA's factors, and the small
//! matrix `T` `[rank, rank]` between them is what MTLoRA adds. This crate attaches such adapters to any Burn module,
//! computes with them without ever making the dense update, merges them, and says what they have learned. It knows no
//! model, no text and no data set; those are in `mtlora-models` and `mtlora-train`.
//!
//! # Attach, train, merge
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::optim::{AdamWConfig, GradientsParams};
//! use burn::tensor::activation::relu;
//! use burn::tensor::{Device, Distribution, Tensor};
//! use mtlora_core::{MtLoraConfig, Structure, Targets, adapted_linear};
//!
//! #[derive(Module, Debug)]
//! struct Network {
//!     hidden: Linear,
//!     output: Linear,
//! }
//!
//! impl Network {
//!     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
//!         // `self.hidden.forward(x)` gives the same values, but makes the dense update `B T A` to do so.
//!         let hidden = relu(adapted_linear(&self.hidden, x));
//!         adapted_linear(&self.output, hidden)
//!     }
//! }
//!
//! # fn main() -> Result<(), mtlora_core::AttachError> {
//! let device = Device::flex().autodiff();
//! let network = Network {
//!     hidden: LinearConfig::new(16, 32).init(&device),
//!     output: LinearConfig::new(32, 4).init(&device),
//! };
//!
//! // Freezes the network, gives `hidden` an adapter, and leaves `output` to be trained as it is.
//! let mut network = MtLoraConfig::new(Structure::Shim)
//!     .with_rank(2)
//!     .with_alpha(4.0)
//!     .with_target_modules(Targets::names(["hidden"]))
//!     .with_modules_to_save(vec!["output".to_string()])
//!     .attach(network)?;
//!
//! // Any optimizer of Burn's trains it, since what is frozen has no gradient.
//! let mut optimizer = AdamWConfig::new().init();
//! let x = Tensor::<2>::random([8, 16], Distribution::Default, &device);
//! let loss = network.forward(x.clone()).square().mean();
//! let gradients = GradientsParams::from_grads(loss.backward(), &network);
//! network = optimizer.step(1e-3, network, gradients);
//!
//! // Adds the update to the weights: the same network without adapters.
//! let adapted = network.valid();
//! let merged = adapted.clone().materialize();
//! let x = x.inner();
//! let difference = (merged.forward(x.clone()) - adapted.forward(x)).abs().max();
//! assert!(difference.into_scalar::<f32>() < 1e-5);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to read next
//!
//! | to | read |
//! |---|---|
//! | choose what is adapted, and how | [`MtLoraConfig`], [`Targets`], [`Structure`] |
//! | train with AdaLoRA, or with DoRA | [`AdaLora`], [`AdaLoraHooks`], and `fit_with_hooks` in `mtlora-train`; [`Dora`] |
//! | see what a method declares, or act while a model trains | [`AdapterMethod`], [`Factor`], [`TrainingHooks`] |
//! | compute with an adapted layer | [`adapted_linear`], [`adapted_embedding`] |
//! | save and load what was trained | [`state`], [`load_state`]; [`adapters`] and [`AdapterValues`] for the factors; in PEFT's form, `PeftAdapter` in `mtlora-models` |
//! | see what an adapter has learned, or add two of them up | [`inspect`], [`Spectrum`], [`combine`], [`LowRank`] |
//! | turn an adapter into plain LoRA | [`AdapterValues::fold`], [`Fold`] |
//! | keep the frozen weights in 16 or 8 bits | [`BaseDtype`] |
//! | choose a device, and make runs repeatable | [`device`](fn@device), [`devices`], [`seed`] |
//! | build a model on batches without padding | [`SequenceOffsets`], [`fused_segment_attention`], [`layer_norm`], [`gelu`] |
//!
//! The repository's book has chapters on this crate, whose programs are tested: `docs/rust/adapters.md` (adapters on a module
//! of your own), `docs/rust/method.md` (methods that act while a model trains) and `docs/rust/kernels.md` (operations on batches
//! without padding, and their kernels).

mod adapter;
mod analysis;
mod autotune;
mod base_dtype;
mod contexts;
mod counting;
mod devices;
mod layers;
mod module_pattern;
mod ops;
mod optimizer;
mod packed;
mod random;
mod self_test;
mod sequence_offsets;
mod squared_norm;
mod state;
mod visit;

// Attaching adapters, and the factors that they have.
pub use adapter::attach::{attach_adapters, trainable_parameters};
pub use adapter::attached::attached;
pub use adapter::config::{FusedProjections, MtLoraConfig};
pub use adapter::error::AttachError;
pub use adapter::factors::Factors;
pub use adapter::form::AdapterForm;
pub use adapter::init::{Init, Start};
pub use adapter::module::Adapter;
pub use adapter::targets::Targets;
pub use adapter::values::{AdapterValues, adapters};
pub use module_pattern::{ModulePattern, PatternError};

// Adapter methods: those that are here, and what another one declares.
pub use adapter::action::{LinearInput, Update};
pub use adapter::hooks::{
    Adapters, FactorChanges, HookError, TrainingHooks, change_factors, check_hooks, factor_path,
};
pub use adapter::methods::adalora::AdaLora;
pub use adapter::methods::adalora::hooks::AdaLoraHooks;
pub use adapter::methods::adalora::schedule::{AdaLoraSchedule, FinalPhase};
pub use adapter::methods::definition::{
    AdapterMethod, Factor, MethodDefinition, RateGroup, Sizes, WeightKind,
};
pub use adapter::methods::dora::Dora;
pub use adapter::methods::structures::Structure;

// Computing with adapted layers, and on batches without padding.
pub use contexts::Contexts;
pub use layers::{
    AttentionForm, RelativePositions, adapted_embedding, adapted_linear, cached_attention, dropout,
    fused_segment_attention, gelu, layer_norm, relative_segment_attention, residual_layer_norm,
    rms_norm, rotate_heads, segment_attention, swiglu, tied_cross_entropy, tied_logits,
};
pub use ops::{
    ActivationDtype, Capabilities, CpuChoice, CpuPath, CpuPathError, Gelu, IGNORE_INDEX,
    MatmulPrecision, MatmulPrecisionError, capabilities, cpu_multiplies_bf16, cpu_multiply_tiles,
    vecmath,
};
pub use sequence_offsets::{SequenceOffsets, SequenceOffsetsError};

// An optimizer's step and the norm of gradients.
pub use ops::AdamWStep;
pub use optimizer::{adamw_step, scaled};

// What an adapter has learned.
pub use adapter::fold::Fold;
pub use analysis::combine::{Combined, combine};
pub use analysis::inspection::{InspectedLayer, Inspection, LayerError, inspect};
pub use analysis::linalg::{Eigenvalue, MatrixError};
pub use analysis::low_rank::{LowRank, Truncation};
pub use analysis::spectrum::{Spectrum, TransformSpectrum, UpdateSpectrum, weight_norms};

// The parameters of a module by their paths, and their precision.
pub use base_dtype::{BaseDtype, BaseDtypeError};
pub use packed::{GROUP, PackedError, PackedFormat, PackedMatrix};
pub use squared_norm::SquaredNorm;
pub use state::{LoadedValue, State, StateError, load_each, load_state, state};
pub use visit::{Container, VisitedParameter, each_parameter};

// Devices and random numbers.
pub use autotune::{Autotune, configure_kernels, kernel_cache};
pub use counting::{DeviceCounts, count_device_work, read};
pub use devices::{NamedDevice, NoDevice, device, device_description, devices};
pub use random::{random_state, random_state_of_part, seed, set_random_state};
pub use self_test::{SelfTestError, self_test};
