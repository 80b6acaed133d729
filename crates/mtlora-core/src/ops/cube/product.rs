//! Products of matrices by one kernel for all shapes and layouts, `ops/definitions/linear.rs`: for devices on which compiling is
//! what takes the time, [`Autotune::Off`](crate::Autotune::Off). On others, Burn's kernels for products are faster, and
//! fusion adds biases and scalings to them.
//!
//! A unit computes a square block of values. There is no shared memory and no barrier, which software drivers would compile into
//! coroutines. On these, blocks are larger than registers would hold: Mesa's driver reads the memory of a buffer lane by lane,
//! which takes longer than many multiplications.
//!
//! Bound: each element of both matrices and of the sum is read once and each of the product written once, 4 bytes an
//! element. The kernel reads the matrices once a block, and leaves the rest to the device's caches.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::memory::{Output, uninitialised};
use super::row_launches::{UNITS_OF_SOFTWARE, flat};
use crate::autotune::is_software;

/// How a product is divided.
#[derive(Clone, Copy)]
pub(super) struct Division {
    /// Rows, and columns, of the product that a unit computes.
    pub block: usize,
    /// Units of a cube: few, since small products have few blocks.
    pub units: u32,
}

impl Division {
    /// For blocks that stay in registers.
    const OF_CARDS: Self = Self {
        block: 8,
        units: 32,
    };
    /// For drivers that compute on the processor.
    const OF_SOFTWARE: Self = Self {
        block: 16,
        units: UNITS_OF_SOFTWARE,
    };

    /// For a product of these sides.
    pub(super) fn of(is_software: bool, sides: [usize; 2]) -> Self {
        let large = Self::OF_SOFTWARE;
        if is_software && sides.iter().all(|side| *side >= large.block) {
            large
        } else {
            Self::OF_CARDS
        }
    }
}

/// The sizes of a product.
#[derive(CubeLaunch, CubeType)]
pub(super) struct Sizes {
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
}

/// Where the elements of a matrix lie in a buffer that begins with the first.
#[derive(CubeLaunch, CubeType)]
pub(super) struct Steps {
    /// From a row to the next.
    pub row: usize,
    /// From a column to the next.
    pub column: usize,
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn product_kernel(
    a: &[f32],
    b: &[f32],
    sum: ComptimeOption<&[f32]>,
    y: &mut [f32],
    sizes: Sizes,
    steps_a: Steps,
    steps_b: Steps,
    steps_sum: Steps,
    scale: f32,
    #[comptime] adds: bool,
    #[comptime] side: usize,
) {
    #[comptime]
    let sum = match sum {
        ComptimeOption::Some(sum) => sum,
        ComptimeOption::None => a,
    };
    let across = (sizes.columns + comptime!(side - 1)) / side;
    let down = (sizes.rows + comptime!(side - 1)) / side;
    let block = ABSOLUTE_POS;
    if block < across * down {
        let first_row = block / across * side;
        let first_column = block % across * side;
        // Rows and columns past the end are read as the last one, and not written.
        let mut places_a = Array::<usize>::new(side);
        let mut places_b = Array::<usize>::new(side);
        #[unroll]
        for i in 0..side {
            places_a[i] = (first_row + i).min(sizes.rows - 1) * steps_a.row;
            places_b[i] = (first_column + i).min(sizes.columns - 1) * steps_b.column;
        }
        let mut products = Array::<f32>::new(comptime!(side * side));
        #[unroll]
        for index in 0..comptime!(side * side) {
            products[index] = 0.0f32;
        }
        let mut right = Array::<f32>::new(side);
        let mut offset_a = 0usize.runtime();
        let mut offset_b = 0usize.runtime();
        let mut at = 0usize.runtime();
        while at < sizes.inner {
            #[unroll]
            for j in 0..side {
                right[j] = b[places_b[j] + offset_b];
            }
            #[unroll]
            for i in 0..side {
                let left = a[places_a[i] + offset_a];
                #[unroll]
                for j in 0..side {
                    products[i * side + j] += left * right[j];
                }
            }
            offset_a += steps_a.column;
            offset_b += steps_b.row;
            at += 1;
        }
        #[unroll]
        for i in 0..side {
            let row = first_row + i;
            #[unroll]
            for j in 0..side {
                let column = first_column + j;
                if row < sizes.rows && column < sizes.columns {
                    let mut value = products[i * side + j] * scale;
                    if comptime!(adds) {
                        value += sum[row * steps_sum.row + column * steps_sum.column];
                    }
                    y[row * sizes.columns + column] = value;
                }
            }
        }
    }
}

/// A matrix that a kernel reads by its strides: where its elements lie, and the kernel's argument for them.
pub(super) fn view(matrix: &CubeTensor) -> (StepsLaunch, BufferArg) {
    let (shape, strides) = (matrix.shape(), matrix.meta.strides());
    let last = (shape[0] - 1) * strides[0] + (shape[1] - 1) * strides[1];
    // SAFETY: the element of the last row and column is the last in memory, so that all lie in the tensor's.
    let argument = unsafe { BufferArg::from_raw_parts(matrix.handle.clone(), last + 1) };
    (StepsLaunch::new(strides[0], strides[1]), argument)
}

pub(super) fn with_strides(matrix: CubeTensor) -> CubeTensor {
    if matrix.meta.is_tiled() {
        into_contiguous(matrix)
    } else {
        matrix
    }
}

/// [`crate::ops::MtLoraBackend::fixed_product`], in the memory of a whole `sum` if no other tensor shares it.
pub(super) fn product(
    a: CubeTensor,
    b: CubeTensor,
    sum: Option<CubeTensor>,
    scale: f32,
) -> CubeTensor {
    let client = a.client.clone();
    let (a, b) = (with_strides(a), with_strides(b));
    let [rows, inner, columns] = [a.shape()[0], a.shape()[1], b.shape()[1]];
    assert_eq!(inner, b.shape()[0], "the columns of a and the rows of b");
    let shape = Shape::from([rows, columns]);
    if rows * columns == 0 {
        return uninitialised(&a, shape, DType::F32);
    }
    let sum = sum.map(into_contiguous);
    let is_row = sum.as_ref().is_some_and(|sum| sum.shape()[0] == 1) && rows > 1;
    let wanted = [if is_row { 1 } else { rows }, columns];
    let fits = sum.as_ref().is_none_or(|sum| sum.shape()[..] == wanted);
    assert!(fits, "the sum has the shape of the product, or is a row");
    let y = match &sum {
        Some(sum) if !is_row => Output::over(sum, 2),
        _ => Output::new(uninitialised(&a, shape, DType::F32)),
    };
    // Buffers are never empty.
    let (a, b) = if inner == 0 {
        (y.tensor.clone(), y.tensor.clone())
    } else {
        (a, b)
    };
    let ((steps_a, a), (steps_b, b)) = (view(&a), view(&b));
    let division = Division::of(is_software(&y.tensor.device), [rows, columns]);
    let blocks = rows.div_ceil(division.block) * columns.div_ceil(division.block);
    let dim = flat(&client, division.units);
    let count = calculate_cube_count_elemwise(&client, blocks, dim);
    let adds = sum.is_some();
    // SAFETY: `view` gives each matrix all places up to that of its last row and column, the kernel reads no row or column
    // past these, and it writes only entries of the product, of which `y` and a sum that is no row have as many.
    unsafe {
        product_kernel::launch_unchecked(
            &client,
            count,
            dim,
            a,
            b,
            sum.map(CubeTensor::into_buffer_arg).into(),
            y.argument(),
            SizesLaunch::new(rows, inner, columns),
            steps_a,
            steps_b,
            StepsLaunch::new(if is_row { 0 } else { columns }, 1),
            scale,
            adds,
            division.block,
        );
    }
    y.tensor
}
