//! The device that a command computes on.

use std::error::Error;
use std::sync::Mutex;

use burn::tensor::Device;
use mtlora::core::{capabilities, devices, self_test};

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
