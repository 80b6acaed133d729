//! How devices that compile kernels choose them, and where they keep what they have learned.

use std::path::PathBuf;

use burn::tensor::Device;

/// How many candidates a device tries before it decides which kernel computes an operation of a new shape. It concerns
/// devices that compile kernels (features `wgpu`, `cuda`, ...); others have one kernel for each operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autotune {
    /// None: matrix products are computed by one kernel for all shapes, so that a product of a new size compiles nothing.
    /// The kernels that Burn chooses for sums are chosen with the fewest trials. It suits software drivers, on which
    /// compiling one of the faster kernels for products takes longer than many steps.
    Off,
    /// The fewest.
    Minimal,
    /// Some: Burn's default.
    Balanced,
    /// More.
    Extensive,
    /// All.
    Full,
}

impl Autotune {
    /// All levels, from the fewest trials to the most.
    pub const ALL: [Self; 5] = [
        Self::Off,
        Self::Minimal,
        Self::Balanced,
        Self::Extensive,
        Self::Full,
    ];

    /// The name that flags use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Minimal => "minimal",
            Self::Balanced => "balanced",
            Self::Extensive => "extensive",
            Self::Full => "full",
        }
    }
}

/// Configures how kernels are chosen, for the whole process, and lets tuning results be kept in the user's cache folder
/// ([`kernel_cache`]). It must be called before anything is computed on such a device.
///
/// Without `autotune`, the variable `CUBECL_AUTOTUNE_LEVEL` or a `cubecl.toml` decides; without these, a software driver
/// gets [`Autotune::Off`]. A folder that a `cubecl.toml` names stays.
///
/// Returns whether the settings are in force: they are not if a device has been used already with others. On other devices
/// nothing happens.
pub fn configure_kernels(device: &Device, autotune: Option<Autotune>) -> bool {
    backend::configure(device, autotune)
}

/// The file in which tuning results are kept between runs, if the build has devices that tune kernels.
/// [`configure_kernels`] chooses its folder.
pub fn kernel_cache() -> Option<PathBuf> {
    backend::cache()
}

/// Whether products on this device are computed by one kernel for all shapes.
#[cfg(feature = "cube")]
pub(crate) fn fixes_products(device: &burn_cubecl::cubecl::device::Device) -> bool {
    backend::fixes_products(device)
}

/// Whether the device's driver computes on the processor.
#[cfg(feature = "cube")]
pub(crate) fn is_software(device: &burn_cubecl::cubecl::device::Device) -> bool {
    backend::is_software(device)
}

#[cfg(feature = "cube")]
mod backend {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    use burn::backend::DispatchDevice;
    use burn::tensor::Device;
    use burn_cubecl::cubecl::config::autotune::AutotuneLevel;
    use burn_cubecl::cubecl::config::cache::CacheConfig;
    use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    use burn_cubecl::cubecl::device::{Device as CubeDevice, WgpuDeviceKind};
    use burn_cubecl::cubecl::environment;

    use super::Autotune;

    /// The level that [`configure`] was given first.
    static CHOSEN: OnceLock<Autotune> = OnceLock::new();

    impl From<Autotune> for AutotuneLevel {
        fn from(level: Autotune) -> Self {
            match level {
                Autotune::Off | Autotune::Minimal => Self::Minimal,
                Autotune::Balanced => Self::Balanced,
                Autotune::Extensive => Self::Extensive,
                Autotune::Full => Self::Full,
            }
        }
    }

    pub(super) fn configure(device: &Device, autotune: Option<Autotune>) -> bool {
        let device = device.clone().inner();
        let DispatchDevice::Cube(device) = device.as_dispatch() else {
            return true;
        };
        let agrees = match autotune {
            Some(level) => *CHOSEN.get_or_init(|| level) == level,
            None => CHOSEN.get().is_none(),
        };
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        match autotune {
            Some(level) => config.autotune.level = level.into(),
            None if fixes_products(device) => config.autotune.level = Autotune::Off.into(),
            None => {}
        }
        if matches!(config.environment.path, CacheConfig::Target) {
            config.environment.path = CacheConfig::Global;
        }
        CubeClRuntimeConfig::try_set(config) && agrees
    }

    pub(super) fn fixes_products(device: &CubeDevice) -> bool {
        match CHOSEN.get() {
            Some(level) => *level == Autotune::Off,
            None => is_software(device) && !names_level(),
        }
    }

    /// Whether a variable or a file of CubeCL's names a level.
    fn names_level() -> bool {
        static NAMES: OnceLock<bool> = OnceLock::new();
        *NAMES.get_or_init(|| {
            let read = CubeClRuntimeConfig::from_current_dir();
            let unset = AutotuneLevel::default();
            std::env::var_os("CUBECL_AUTOTUNE_LEVEL").is_some()
                || std::mem::discriminant(&read.autotune.level) != std::mem::discriminant(&unset)
        })
    }

    pub(super) fn is_software(device: &CubeDevice) -> bool {
        match device {
            CubeDevice::Wgpu(device) => matches!(device.kind, WgpuDeviceKind::Cpu),
            CubeDevice::Cpu(_) => true,
            _ => false,
        }
    }

    pub(super) fn cache() -> Option<PathBuf> {
        Some(environment::path())
    }
}

#[cfg(not(feature = "cube"))]
mod backend {
    use std::path::PathBuf;

    use burn::tensor::Device;

    use super::Autotune;

    pub(super) fn configure(_device: &Device, _autotune: Option<Autotune>) -> bool {
        true
    }

    pub(super) fn cache() -> Option<PathBuf> {
        None
    }
}
