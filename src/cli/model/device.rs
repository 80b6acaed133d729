//! The device that a command computes on.

use std::error::Error;
use std::sync::{Mutex, OnceLock};

use burn::tensor::Device;
use mtlora::core::{Autotune, NamedDevice, capabilities, configure_kernels, devices, self_test};

static AUTOTUNE: OnceLock<Autotune> = OnceLock::new();
/// The number of this process among those of this machine that train together.
static LOCAL_RANK: OnceLock<usize> = OnceLock::new();

/// Sets the level with which devices choose kernels, before any is opened.
pub(crate) fn set_autotune(level: Option<Autotune>) {
    if let Some(level) = level {
        AUTOTUNE.get_or_init(|| level);
    }
}

/// Gives each of the processes of this machine that train together a device of its own, if the machine has several of the
/// wanted kind. `rank` is the number of this process among them.
#[cfg(feature = "mpi")]
pub(crate) fn set_local_rank(rank: usize) {
    LOCAL_RANK.get_or_init(|| rank);
}

/// The name of this process's own device among those of this machine that are called `name`, or `name:1` and so on.
fn own(name: &str, devices: &[NamedDevice], rank: usize) -> Option<String> {
    let is_meant = |device: &&NamedDevice| {
        let rest = device.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    };
    let meant: Vec<&NamedDevice> = devices.iter().filter(is_meant).collect();
    let chosen = meant.get(rank.checked_rem(meant.len())?)?;
    Some(chosen.name.clone())
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
    let own = match LOCAL_RANK.get() {
        Some(rank) => own(name, &devices(), *rank),
        None => None,
    };
    let name = own.as_deref().unwrap_or(name);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rank_of_a_machine_has_a_device_of_its_own() {
        let device = devices().remove(0).device;
        let named = |name: &str| NamedDevice {
            name: name.to_string(),
            device: device.clone(),
        };
        let devices = ["flex", "cuda", "cuda:1", "cuda:2"].map(named);
        let own = |name: &str, rank| own(name, &devices, rank).unwrap_or_default();
        assert_eq!(
            [0, 1, 2, 3].map(|rank| own("cuda", rank)),
            ["cuda", "cuda:1", "cuda:2", "cuda"]
        );
        assert_eq!([0, 1].map(|rank| own("flex", rank)), ["flex", "flex"]);
        assert_eq!(own("cuda:1", 5), "cuda:1");
        assert_eq!(own("rocm", 1), "");
    }
}
