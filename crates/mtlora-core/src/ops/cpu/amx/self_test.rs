//! Whether a product of tiles comes out right, before anything depends on it.

use super::Amx;
use super::tiles::{Block, Lines, PAIRS, Rows, Start, Tiles, WIDTH};

/// Instructions in a sum.
const LENGTH: usize = 2;
/// What stands beside the output, and must stay.
const BESIDE: f32 = 0.5;

/// Products of whole numbers, which are exact in any order, so that the result does not depend on how the processor rounds:
/// one into a block, and one of half as many rows into the middle of something larger, which begins with what is there.
pub(super) fn passes(amx: Amx) -> bool {
    let left: [[Rows; 1]; LENGTH] = std::array::from_fn(|part| {
        [Rows(std::array::from_fn(|row| {
            std::array::from_fn(|pair| {
                pairs(|at| left_element(row, part * 2 * PAIRS + 2 * pair + at))
            })
        }))]
    });
    let right: [[Lines; 1]; LENGTH] = std::array::from_fn(|part| {
        [Lines(std::array::from_fn(|pair| {
            std::array::from_fn(|column| {
                pairs(|at| right_element(part * 2 * PAIRS + 2 * pair + at, column))
            })
        }))]
    });
    whole(amx, &left, &right) && half(amx, &left, &right)
}

fn whole(amx: Amx, left: &[[Rows; 1]], right: &[[Lines; 1]]) -> bool {
    let mut found = Block([[BESIDE; WIDTH]; WIDTH]);
    let first = found.0.as_mut_ptr().cast();
    let tiles = Tiles::configure(amx);
    // SAFETY: the block is 32 rows of 32 floats, and borrowed alone.
    unsafe { tiles.multiply::<true, 1>(left, right, Start::zero(), first, WIDTH, left.as_ptr()) };
    drop(tiles);
    (0..WIDTH).all(|row| (0..WIDTH).all(|column| found.0[row][column] == exact(row, column)))
}

fn half(amx: Amx, left: &[[Rows; 1]], right: &[[Lines; 1]]) -> bool {
    const ROWS: usize = WIDTH / 2;
    const STRIDE: usize = WIDTH + 3;
    let mut found = [[BESIDE; STRIDE]; ROWS + 2];
    let first = found.as_mut_ptr().cast::<f32>().wrapping_add(STRIDE + 1);
    let start = Start {
        first,
        stride: STRIDE,
    };
    let tiles = Tiles::configure(amx);
    // SAFETY: from its second row and column on, the array has 16 rows of 32 floats, with room to spare.
    unsafe { tiles.multiply::<false, 1>(left, right, start, first, STRIDE, left.as_ptr()) };
    drop(tiles);
    found.iter().enumerate().all(|(row, found)| {
        found.iter().enumerate().all(|(column, found)| {
            let written = (1..=ROWS).contains(&row) && (1..=WIDTH).contains(&column);
            let sum = if written {
                exact(row - 1, column - 1)
            } else {
                0.0
            };
            *found == BESIDE + sum
        })
    })
}

fn exact(row: usize, column: usize) -> f32 {
    (0..LENGTH * 2 * PAIRS)
        .map(|at| left_element(row, at) * right_element(at, column))
        .sum()
}

/// No two rows are the same, and no two places of a row.
fn left_element(row: usize, at: usize) -> f32 {
    ((row * 37 + at * 11) % 61) as f32 - 30.0
}

fn right_element(at: usize, column: usize) -> f32 {
    ((at * 23 + column * 7) % 59) as f32 - 29.0
}

/// Two whole numbers as bfloat16, which has them exactly.
fn pairs(element: impl Fn(usize) -> f32) -> u32 {
    let [low, high] = [0, 1].map(|at| element(at).to_bits() >> 16);
    low | high << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn right_products_pass() {
        if let Some(amx) = Amx::for_tests() {
            assert!(passes(amx));
        }
    }

    /// Sums of at most 64 products of at most 900 are exact in 32-bit floats, and the elements as bfloat16.
    #[test]
    fn elements_are_exact() {
        for at in 0..LENGTH * 2 * PAIRS {
            for other in 0..WIDTH {
                for value in [left_element(other, at), right_element(at, other)] {
                    assert_eq!(value.to_bits() & 0xffff, 0);
                    assert!(value.abs() <= 30.0);
                }
            }
        }
    }
}
