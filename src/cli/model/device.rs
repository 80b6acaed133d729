//! The device that a command computes on.

use std::error::Error;
use std::sync::{Mutex, OnceLock};

use burn::tensor::Device;
use mtlora::core::{Autotune, NamedDevice, capabilities, configure_kernels, devices, self_test};

static AUTOTUNE: OnceLock<Autotune> = OnceLock::new();

/// Sets the level with which devices choose kernels, before any is opened.
pub(crate) fn set_autotune(level: Option<Autotune>) {
    if let Some(level) = level {
        AUTOTUNE.get_or_init(|| level);
    }
}

/// Reads the value of `--autotune`.
pub(crate) fn parse_autotune(name: &str) -> Result<Autotune, String> {
    let levels = Autotune::ALL.into_iter();
    let names = Autotune::ALL.map(Autotune::name).join(", ");
    let mut found = levels.filter(|level| level.name() == name);
    found
        .next()
        .ok_or_else(|| format!("it must be one of {names}"))
}

/// The devices of the build, ready to be asked what they can do.
pub(crate) fn all() -> Vec<NamedDevice> {
    let devices = devices();
    for named in &devices {
        configure_kernels(&named.device, AUTOTUNE.get().copied());
    }
    devices
}

/// The wanted name, or that of the build's first device.
pub(crate) fn name_or_default(wanted: Option<&str>) -> Result<String, Box<dyn Error>> {
    match wanted {
        Some(name) => Ok(name.to_string()),
        None => {
            let first = devices().into_iter().next();
            let first = first.ok_or("this build has no backend; build with --features flex")?;
            Ok(first.name)
        }
    }
}

/// The device of that name. Other devices than the processor are [tested](self_test) when they are opened for the first
/// time, since some drivers compute wrong results without an error.
pub(crate) fn open(name: &str) -> Result<Device, Box<dyn Error>> {
    static PASSED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let device = mtlora::core::device(name)?;
    configure_kernels(&device, AUTOTUNE.get().copied());
    if capabilities(&device).on_host {
        return Ok(device);
    }
    let mut passed = PASSED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if !passed.iter().any(|one| one == name) {
        self_test(&device).map_err(|error| {
            format!(
                "device `{name}` does not compute as it should: {error}; name another with --device (`mtlora devices` \
                 lists them), or update its driver"
            )
        })?;
        passed.push(name.to_string());
    }
    Ok(device)
}
