//! Sums over the units of a cube, in shared memory: in halves, so that their order is the same each time.

use burn_cubecl::cubecl::{self, prelude::*};

/// The sum of the units' values, for all of them.
#[cube]
pub(super) fn sum_of_units(own: f32, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    let mut sums = Shared::<[f32]>::new_slice(units);
    sums[unit] = own;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let distance = comptime!(units >> (level + 1));
        if unit < distance {
            sums[unit] = sums[unit] + sums[unit + distance];
        }
        sync_cube();
    }
    sums[0]
}

/// Three values.
#[derive(CubeType)]
pub(super) struct Three {
    pub a: f32,
    pub b: f32,
    pub c: f32,
}

/// The sums of each of the three over the units, for all of them.
#[cube]
pub(super) fn sums_of_units(own: Three, #[comptime] units: usize) -> Three {
    let unit = UNIT_POS as usize;
    let mut a = Shared::<[f32]>::new_slice(units);
    let mut b = Shared::<[f32]>::new_slice(units);
    let mut c = Shared::<[f32]>::new_slice(units);
    a[unit] = own.a;
    b[unit] = own.b;
    c[unit] = own.c;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let distance = comptime!(units >> (level + 1));
        if unit < distance {
            let other = unit + distance;
            a[unit] = a[unit] + a[other];
            b[unit] = b[unit] + b[other];
            c[unit] = c[unit] + c[other];
        }
        sync_cube();
    }
    Three {
        a: a[0],
        b: b[0],
        c: c[0],
    }
}
