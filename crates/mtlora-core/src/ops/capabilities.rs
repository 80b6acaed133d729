//! What a device can do, so that code does not ask which backend it belongs to.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::Device;
use burn::backend::{Autodiff, Backend, DTypeUsage, Dispatch, DispatchDevice};
use burn::tensor::DType;

use super::cpu::CpuChoice;

/// What a device can do, as far as code outside its kernels has to know.
///
/// [`capabilities`] says it of a device. Code asks for what it needs and never for a backend's name, so that a new
/// backend, or a new kernel of an old one, needs no change elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The device is the processor that runs the program: its memory is the program's own.
    pub on_host: bool,
    /// An operation has been computed when its call returns. Otherwise operations are queued, and reading a value waits
    /// until the device has computed everything before it: read late, and rarely.
    pub eager: bool,
    /// Kernels are compiled, or tuned, again for each new shape of a tensor, so that few different shapes are faster than
    /// shapes that fit exactly.
    pub compiles_per_shape: bool,
    /// The most bytes that one tensor may take.
    pub largest_tensor: usize,
    /// Dropout makes its mask from a seed and the place of an element, in both passes, so that no mask is held and a seed
    /// gives the same masks on every such device. Otherwise the device draws the masks with its own generator and holds
    /// them until the backward pass.
    pub seeded_dropout: bool,
    /// Matrices can be kept as bfloat16 and converted when they are used.
    pub stores_bf16: bool,
    /// Matrices can be kept as 8-bit integers with scales and converted when they are used.
    pub stores_int8: bool,
    /// Linear weights can be kept packed ([`PackedMatrix`](crate::PackedMatrix)) and unpacked where they are multiplied.
    pub stores_packed: bool,
    /// Products of bfloat16 matrices have instructions of their own, so that a bfloat16 weight is faster and not only
    /// smaller.
    pub multiplies_bf16: bool,
    /// Attention rounds the factors of its products to bfloat16, in both passes, where its inputs are kept as
    /// [`ActivationDtype::Bf16`](crate::ActivationDtype::Bf16).
    pub rounds_attention: bool,
    /// Attention's kernels read the sequence offsets, and the contexts of decoding, from the device's memory. Otherwise the
    /// tensors of them are never made.
    pub reads_offsets: bool,
    /// A residual connection with its dropout and the layer norm after it are one kernel in each pass.
    pub adds_and_normalizes: bool,
    /// Matrix products are computed by one kernel for all shapes, in place of several that are compiled and tried for each:
    /// [`Autotune::Off`](crate::Autotune::Off).
    pub fixes_products: bool,
    /// Frozen matrices in less than 32 bits are kept in words, from which kernels unpack what they multiply.
    pub unpacks_words: bool,
    /// Which of the processor's instructions the device's kernels use, if it is the processor and has kernels.
    pub cpu: Option<CpuChoice>,
}

impl Capabilities {
    /// The capabilities of a device that computes every operation by its definition and queues computations, which is
    /// a safe assumption for a GPU.
    pub(super) fn of_definitions<B: Backend>(device: &Device<B>) -> Self {
        let stores_bf16 = B::supports_dtype(device, DType::BF16);
        Self {
            on_host: false,
            eager: false,
            compiles_per_shape: true,
            largest_tensor: usize::MAX,
            seeded_dropout: false,
            stores_bf16,
            // Burn packs the integers itself. Embeddings do not matter here, because they are kept in bfloat16.
            stores_int8: true,
            stores_packed: false,
            multiplies_bf16: B::dtype_usage(device, DType::BF16).contains(DTypeUsage::Accelerated),
            rounds_attention: false,
            reads_offsets: false,
            adds_and_normalizes: false,
            fixes_products: false,
            unpacks_words: false,
            cpu: None,
        }
    }

    /// The capabilities of the processor that runs the program, where operations are plain loops. Dropout masks are
    /// made from seeds even where there is no kernel, because this costs the same.
    pub(super) fn of_host<B: Backend>(device: &Device<B>) -> Self {
        Self {
            on_host: true,
            eager: true,
            compiles_per_shape: false,
            seeded_dropout: true,
            multiplies_bf16: false,
            ..Self::of_definitions::<B>(device)
        }
    }
}

/// A backend that says what its devices can do: one half of [`MtLoraBackend`](super::MtLoraBackend).
///
/// It is a trait of its own because the macro that makes the other half dispatch on a device allows only methods with a
/// tensor among their arguments.
pub trait BackendCapabilities: Backend {
    /// What `device` can do. The default is a queued device on which every operation is its definition.
    fn capabilities(device: &Device<Self>) -> Capabilities {
        Capabilities::of_definitions::<Self>(device)
    }
}

/// What `device` can do.
///
/// ```
/// let device = burn::tensor::Device::flex();
/// assert!(mtlora_core::capabilities(&device).eager);
/// ```
pub fn capabilities(device: &burn::tensor::Device) -> Capabilities {
    Dispatch::capabilities(device.as_dispatch())
}

/// Whether the kernels for the CPU multiply bfloat16 values with instructions of their own.
///
/// On x86-64 it is true only on a processor with AVX-512 and its bfloat16 instructions (`avx512f` and `avx512bf16`); unsafe code
/// may rely on that. On 64-bit ARM it is true only on one with `bf16`. It is false where these are slower than the instructions
/// for 32-bit floats and nothing asks for them, if [`CpuChoice::VARIABLE`] names a slower path, and without the feature `flex`,
/// which has the kernels.
pub fn cpu_multiplies_bf16() -> bool {
    #[cfg(feature = "flex")]
    {
        super::flex::instructions::multiplies_bf16()
    }
    #[cfg(not(feature = "flex"))]
    {
        false
    }
}

/// Multiplies the tiles of bfloat16 that fit in registers, on this thread and `times` times over, to measure how fast that is.
/// Returns the number of multiply-adds, or nothing where the path of the kernels ([`CpuChoice`]) is neither
/// [`CpuPath::Amx`](super::CpuPath::Amx) nor [`CpuPath::NeonBf16`](super::CpuPath::NeonBf16).
///
/// # Panics
/// When `times` is 0.
pub fn cpu_multiply_tiles(times: usize) -> Option<usize> {
    #[cfg(all(feature = "flex", target_arch = "x86_64"))]
    {
        let amx = super::flex::instructions::amx()?;
        Some(super::cpu::multiply_repeatedly(amx, times))
    }
    #[cfg(all(feature = "flex", target_arch = "aarch64"))]
    {
        let bf16 = super::flex::instructions::neon_bf16()?;
        Some(bf16.multiply_repeatedly(times))
    }
    #[cfg(not(all(feature = "flex", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        let _ = times;
        None
    }
}

#[cfg(feature = "ndarray")]
impl BackendCapabilities for burn::backend::NdArray {
    fn capabilities(device: &Device<Self>) -> Capabilities {
        Capabilities::of_host::<Self>(device)
    }
}

#[cfg(feature = "cube")]
impl<B: burn::backend::fusion::FusionBackend + BackendCapabilities> BackendCapabilities
    for burn::backend::fusion::Fusion<B>
{
    fn capabilities(device: &Device<Self>) -> Capabilities {
        B::capabilities(device)
    }
}

impl<B: BackendCapabilities, C: CheckpointStrategy> BackendCapabilities for Autodiff<B, C> {
    fn capabilities(device: &Device<Self>) -> Capabilities {
        B::capabilities(device)
    }
}

impl BackendCapabilities for Dispatch {
    fn capabilities(device: &DispatchDevice) -> Capabilities {
        match device {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(device) => burn::backend::Flex::capabilities(device),
            #[cfg(feature = "ndarray")]
            DispatchDevice::NdArray(device) => burn::backend::NdArray::capabilities(device),
            #[cfg(feature = "cube")]
            DispatchDevice::Cube(device) => burn::backend::Cube::capabilities(device),
            DispatchDevice::Autodiff(device) => Self::capabilities(device),
            // A backend that another crate has switched on.
            #[allow(unreachable_patterns)]
            other => Capabilities::of_definitions::<Self>(other),
        }
    }
}
