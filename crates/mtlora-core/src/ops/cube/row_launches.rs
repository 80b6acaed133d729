//! How kernels that give each row a cube, and kernels without rows, are launched.

use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::device::Device;
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};

use crate::autotune::is_software;

/// The most units that a row gets. More would only wait for each other, where several rows share a processor.
pub(super) const UNITS: u32 = 256;

/// Units of a cube on drivers that compute on the processor: as many as Mesa's has lanes. With more, it stops at each barrier and goes
/// over the groups of lanes in turn.
pub(super) const UNITS_OF_SOFTWARE: u32 = 8;

/// Units for a row of `width` values of which each unit reads `strip` or more: a power of two, and one of few, since each is
/// another kernel.
pub(super) fn units_for(device: &Device, width: usize, strip: usize) -> usize {
    // In tests, rows of odd widths get as many as on a card, so that both forms are tested.
    let as_on_card = cfg!(test) && !width.is_multiple_of(2);
    if is_software(device) && !as_on_card {
        return UNITS_OF_SOFTWARE as usize;
    }
    let client = device.client();
    let hardware = &client.properties().hardware;
    let most = UNITS
        .min(hardware.max_units_per_cube)
        .min(hardware.max_cube_dim.0);
    let most = 1 << most.max(1).ilog2();
    let wanted = width.div_ceil(strip).next_power_of_two();
    wanted.clamp(most.min(32), most)
}

/// Launches for `rows` rows, with a cube each, as the device allows in one: the first row, the cubes, and the units of a cube.
pub(super) fn launches(
    client: &Client,
    rows: usize,
    units: usize,
) -> impl Iterator<Item = (usize, CubeCount, CubeDim)> + use<> {
    let most = client.properties().hardware.max_cube_count.0 as usize;
    (0..rows).step_by(most).map(move |first| {
        let cubes = (rows - first).min(most) as u32;
        (
            first,
            CubeCount::Static(cubes, 1, 1),
            CubeDim::new_1d(units as u32),
        )
    })
}

/// A cube of `units` units in one direction, or as many as the device has. Kernels are compiled for a cube's size, so that a size
/// which depends on the number of elements would make several kernels of one.
pub(super) fn flat(client: &Client, units: u32) -> CubeDim {
    let hardware = &client.properties().hardware;
    let most = hardware.max_units_per_cube.min(hardware.max_cube_dim.0);
    CubeDim::new_1d(units.min(most))
}
