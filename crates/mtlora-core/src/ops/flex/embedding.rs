use burn::backend::flex::FlexTensor;
use burn::backend::tensor::IntTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::instructions::vectorized;
use super::{contiguous, tensor, values};

/// Parts of a table that threads share.
const PARTS: usize = 64;

vectorized! {
    /// Adds a row to another.
    fn add(sum: &mut [f32], row: &[f32]) {
        for (sum, x) in sum.iter_mut().zip(row) {
            *sum += x;
        }
    }
}

/// [`crate::ops::MtLoraBackend::select_rows_backward`]. Only the rows that occur are written: the others are memory that comes
/// from the system as zeros where the table is large.
///
/// # Panics
/// When an id is not one of the table's rows.
pub(crate) fn select_rows_backward(
    dy: FlexTensor,
    ids: IntTensor<Flex>,
    rows: usize,
) -> FlexTensor {
    let (dy, width) = (contiguous(dy.clone()), dy.shape()[1]);
    let tokens = tokens_by_row(ids, rows);
    assert_eq!(tokens.len(), dy.shape()[0], "an id for each row");
    let mut table = vec![0.0; rows * width];
    if !table.is_empty() {
        let (dy, part) = (values(&dy), rows.div_ceil(PARTS));
        let parts = table.par_chunks_mut(part * width).enumerate();
        parts.for_each(|(index, table)| {
            let first = index * part;
            let start = tokens.partition_point(|(row, _)| *row < first);
            for (row, token) in &tokens[start..] {
                let Some(sum) = table.get_mut((row - first) * width..(row - first + 1) * width)
                else {
                    break;
                };
                add(sum, &dy[token * width..][..width]);
            }
        });
    }
    tensor(table, Shape::from([rows, width]))
}

/// The row of each token and the token, by rows, and by tokens where these are the same.
fn tokens_by_row(ids: IntTensor<Flex>, rows: usize) -> Vec<(usize, usize)> {
    let data = ids.into_data().convert::<i64>();
    let ids = data.try_to_vec::<i64>().unwrap_or_default();
    let places = ids.into_iter().enumerate().map(|(token, id)| {
        let row = usize::try_from(id).unwrap_or(usize::MAX);
        assert!(row < rows, "id {id} of a table of {rows} rows");
        (row, token)
    });
    let mut tokens: Vec<_> = places.collect();
    tokens.sort_unstable();
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::definitions::embedding;
    use crate::ops::flex::testing::random;
    use burn::backend::ops::IntTensorOps;
    use burn::tensor::TensorData;

    fn ids(values: &[i32]) -> IntTensor<Flex> {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        Flex::int_from_data(data, &Default::default())
    }

    /// The same bits as Burn's: the order of the sums is that of the tokens. One row of a small table, many of a large one, and
    /// a table of which most rows do not occur.
    #[test]
    fn rows_are_added_in_the_order_of_the_tokens() {
        for (tokens, rows, width) in [
            (50, 1, 7),
            (300, 13, 33),
            (200, 1000, 16),
            (0, 5, 3),
            (4, 2, 0),
        ] {
            let looked_up: Vec<i32> = (0..tokens).map(|at| (at * 7919 % rows) as i32).collect();
            let dy = random([tokens, width], 1.0, 1);
            let expected = embedding::backward::<Flex>(dy.clone(), ids(&looked_up), rows);
            // The memory that the output is likely to get.
            drop(vec![f32::NAN; rows * width]);
            let found = select_rows_backward(dy, ids(&looked_up), rows);
            assert_eq!(found.shape(), expected.shape());
            assert_eq!(
                values(&found),
                values(&expected),
                "{tokens} tokens, {rows} rows"
            );
        }
    }

    #[test]
    #[should_panic(expected = "id 3 of a table of 3 rows")]
    fn an_id_beyond_the_table_is_an_error() {
        select_rows_backward(random([2, 4], 1.0, 1), ids(&[0, 3]), 3);
    }
}
