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

/// What the gradient of a normalised row sums over its elements.
#[derive(CubeType)]
pub(super) struct BackwardSums {
    /// Of the squares of the centred values.
    pub squares: f32,
    /// Of the gradients of the normalised values.
    pub gradients: f32,
    /// Of these gradients times the centred values.
    pub products: f32,
}

/// The sums of each over the units, for all of them.
#[cube]
pub(super) fn backward_sums(own: BackwardSums, #[comptime] units: usize) -> BackwardSums {
    let unit = UNIT_POS as usize;
    let mut squares = Shared::<[f32]>::new_slice(units);
    let mut gradients = Shared::<[f32]>::new_slice(units);
    let mut products = Shared::<[f32]>::new_slice(units);
    squares[unit] = own.squares;
    gradients[unit] = own.gradients;
    products[unit] = own.products;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let distance = comptime!(units >> (level + 1));
        if unit < distance {
            let other = unit + distance;
            squares[unit] = squares[unit] + squares[other];
            gradients[unit] = gradients[unit] + gradients[other];
            products[unit] = products[unit] + products[other];
        }
        sync_cube();
    }
    BackwardSums {
        squares: squares[0],
        gradients: gradients[0],
        products: products[0],
    }
}
