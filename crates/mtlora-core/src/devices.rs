use burn::tensor::Device;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "cube"))]
use burn::tensor::DeviceType;

/// A device that this build can compute on.
#[derive(Clone, Debug)]
pub struct NamedDevice {
    /// `flex`, `ndarray`, `wgpu`, `wgpu:1`, ...
    pub name: String,
    /// The device, without automatic differentiation.
    pub device: Device,
}

/// Every device of this machine that a backend of this build can use. The first is the default.
pub fn devices() -> Vec<NamedDevice> {
    #[allow(unused_mut)]
    let mut found: Vec<NamedDevice> = Vec::new();
    #[cfg(feature = "flex")]
    list(&mut found, "flex", DeviceType::Flex);
    #[cfg(feature = "ndarray")]
    list(&mut found, "ndarray", DeviceType::NdArray);
    #[cfg(feature = "cuda")]
    list(&mut found, "cuda", DeviceType::Cuda);
    #[cfg(feature = "rocm")]
    list(&mut found, "rocm", DeviceType::Rocm);
    #[cfg(feature = "metal")]
    list(&mut found, "metal", DeviceType::Metal);
    #[cfg(feature = "vulkan")]
    list(&mut found, "vulkan", DeviceType::Vulkan);
    #[cfg(feature = "webgpu")]
    list(&mut found, "webgpu", DeviceType::WebGpu);
    #[cfg(feature = "wgpu")]
    list(&mut found, "wgpu", DeviceType::Wgpu);
    found
}

#[cfg(any(feature = "flex", feature = "ndarray", feature = "cube"))]
fn list(found: &mut Vec<NamedDevice>, name: &str, device_type: DeviceType) {
    for (index, device) in Device::enumerate(device_type)
        .into_vec()
        .into_iter()
        .enumerate()
    {
        let name = match index {
            0 => name.to_string(),
            _ => format!("{name}:{index}"),
        };
        found.push(NamedDevice { name, device });
    }
}

/// What a device calls itself, such as a graphics card's name: nothing for the processor. It opens the device.
pub fn device_description(device: &Device) -> Option<String> {
    #[cfg(feature = "cube")]
    return device.identity().map(|identity| identity.name);
    #[cfg(not(feature = "cube"))]
    {
        let _ = device;
        None
    }
}

/// No device has that name here.
#[derive(Debug, thiserror::Error)]
#[error("there is no device `{name}` here; there is: {}", .available.join(", "))]
pub struct NoDevice {
    /// The name that was asked for.
    pub name: String,
    /// The names of the devices that there are.
    pub available: Vec<String>,
}

/// The device of that name.
///
/// # Errors
/// When no device has that name; the error lists those that there are.
pub fn device(name: &str) -> Result<Device, NoDevice> {
    let devices = devices();
    match devices.iter().find(|device| device.name == name) {
        Some(found) => Ok(found.device.clone()),
        None => Err(NoDevice {
            name: name.to_string(),
            available: devices.into_iter().map(|device| device.name).collect(),
        }),
    }
}
