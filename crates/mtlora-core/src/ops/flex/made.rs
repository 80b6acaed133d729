use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::CHUNK;
use super::instructions::vectorized;

/// `length` values, made chunk after chunk by all threads. `make` gets a chunk's index and its memory,
/// which holds default values: written where and when they are written over, not before by one thread.
pub(in crate::ops::flex) fn made<E: Copy + Default + Send>(
    length: usize,
    chunk: usize,
    make: impl Fn(usize, &mut [E]) + Sync,
) -> Vec<E> {
    let mut out = Vec::with_capacity(length);
    out.spare_capacity_mut()[..length]
        .par_chunks_mut(chunk.max(1))
        .enumerate()
        .for_each(|(index, chunk)| make(index, defaults(chunk)));
    // SAFETY: the chunks are the first `length` elements, and `defaults` has written all of each.
    unsafe { out.set_len(length) };
    out
}

/// `f` of each value, on all threads.
pub(super) fn mapped<A: Copy + Sync, E: Send>(values: &[A], f: impl Fn(A) -> E + Sync) -> Vec<E> {
    let mut out = Vec::with_capacity(values.len());
    out.spare_capacity_mut()[..values.len()]
        .par_chunks_mut(CHUNK)
        .zip(values.par_chunks(CHUNK))
        .for_each(|(out, values)| write_each(out, values, &f));
    // SAFETY: each value has one in `out`, which has been written.
    unsafe { out.set_len(values.len()) };
    out
}

vectorized! {
    /// Writes `f` of each value.
    fn write_each[A: Copy, E, F: Fn(A) -> E](out: &mut [MaybeUninit<E>], values: &[A], f: &F) {
        for (out, value) in out.iter_mut().zip(values) {
            out.write(f(*value));
        }
    }
}

fn defaults<E: Copy + Default>(memory: &mut [MaybeUninit<E>]) -> &mut [E] {
    for element in &mut *memory {
        element.write(E::default());
    }
    // SAFETY: every element has just been written.
    unsafe { memory.assume_init_mut() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_lie_one_after_the_other(length in 0usize..5_000, chunk in 0usize..700) {
            let found = made(length, chunk, |index, values| {
                for (at, value) in values.iter_mut().enumerate().skip(1) {
                    *value = index * chunk.max(1) + at;
                }
            });
            // The first of each chunk is left as it was.
            let expected: Vec<usize> = (0..length)
                .map(|at| if at % chunk.max(1) == 0 { 0 } else { at })
                .collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn each_value_is_mapped(values in prop::collection::vec(-9i16..9, 0..3 * CHUNK)) {
            let expected: Vec<i32> = values.iter().map(|x| i32::from(*x) + 1).collect();
            prop_assert_eq!(mapped(&values, |x| i32::from(x) + 1), expected);
        }
    }
}
