//! A left matrix that is the transpose of one in memory, as a weight's gradient `xᵀ dy` has it.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::aligned::Aligned;

/// Blocks that a task packs: it reads this many times `R` neighbours of each row.
const TOGETHER: usize = 4;

/// The columns of a matrix, `[units, columns]`, in blocks of `R` of them: of each, unit after unit, and beyond the last column
/// zeros. `element` is how a product reads a float.
///
/// # Panics
/// When there are no columns, or the last unit is not whole.
pub(super) fn pack_columns<const R: usize, E: Copy + Default + Send>(
    values: &[f32],
    columns: usize,
    element: impl Fn(f32) -> E + Sync,
) -> Aligned<[E; R]> {
    assert!(values.len().is_multiple_of(columns));
    let units = values.len() / columns;
    let size = units * columns.div_ceil(R);
    let mut packed = Aligned::with_capacity(size);
    if size == 0 {
        return packed;
    }
    packed.memory()[..size]
        .par_chunks_mut(units * TOGETHER)
        .enumerate()
        .for_each(|(index, packed)| {
            let first = index * TOGETHER * R;
            for (unit, row) in values.chunks_exact(columns).enumerate() {
                let starts = (first..columns).step_by(R);
                for (block, start) in packed.chunks_exact_mut(units).zip(starts) {
                    write(&mut block[unit], &row[start..], &element);
                }
            }
        });
    // SAFETY: each task has written each unit of its blocks, and the tasks have all blocks.
    unsafe { packed.set_len(size) };
    packed
}

/// The first `R` values, or as many as there are, and zeros.
#[inline(always)]
fn write<const R: usize, E: Copy + Default>(
    place: &mut MaybeUninit<[E; R]>,
    values: &[f32],
    element: impl Fn(f32) -> E,
) {
    place.write(match values.first_chunk::<R>() {
        Some(values) => values.map(element),
        None => {
            let mut block = [E::default(); R];
            for (to, from) in block.iter_mut().zip(values) {
                *to = element(*from);
            }
            block
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_block_has_columns_unit_after_unit(units in 0usize..20, columns in 1usize..40) {
            const R: usize = 6;
            let values: Vec<f32> = (0..units * columns).map(|at| at as f32 + 1.0).collect();
            let packed = pack_columns::<R, _>(&values, columns, |x| x as u32);
            prop_assert_eq!(packed.len(), units * columns.div_ceil(R));
            for (at, lanes) in packed.iter().enumerate() {
                let (block, unit) = (at / units, at % units);
                for (lane, found) in lanes.iter().enumerate() {
                    let column = block * R + lane;
                    let value = unit * columns + column + 1;
                    let expected = if column < columns { value as u32 } else { 0 };
                    prop_assert_eq!(*found, expected);
                }
            }
        }
    }
}
