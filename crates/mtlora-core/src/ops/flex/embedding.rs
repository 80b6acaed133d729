use burn::backend::flex::FlexTensor;
use burn::backend::tensor::IntTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use rayon::prelude::*;

use super::instructions::vectorized;
use super::products::packed::unpack;
use super::{contiguous, made, tensor, values};
use crate::ops::Weight;
use crate::ops::definitions::embedding;
use crate::packed;

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

/// [`crate::ops::MtLoraBackend::select_rows`]. Of a packed table, the rows that are looked up are unpacked, and no others.
///
/// # Panics
/// When an id is not one of the table's rows.
pub(crate) fn select_rows(table: Weight<Flex>, ids: IntTensor<Flex>) -> FlexTensor {
    let Weight::Quantized(weight) = &table else {
        return embedding::forward::<Flex>(table, ids);
    };
    let Some(matrix) = packed::view(weight).filter(|matrix| !matrix.is_turned()) else {
        return embedding::forward::<Flex>(table, ids);
    };
    let [rows, width] = matrix.sides();
    let looked_up = looked_up(ids, rows);
    let out = made(looked_up.len() * width, width, |token, out| {
        let row = looked_up[token];
        unpack(matrix, row..row + 1, 0..width, out);
    });
    tensor(out, Shape::from([looked_up.len(), width]))
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

/// The row of each token.
fn looked_up(ids: IntTensor<Flex>, rows: usize) -> Vec<usize> {
    let data = ids.into_data().convert::<i64>();
    let ids = data.try_to_vec::<i64>().unwrap_or_default();
    let places = ids.into_iter().map(|id| {
        let row = usize::try_from(id).unwrap_or(usize::MAX);
        assert!(row < rows, "id {id} of a table of {rows} rows");
        row
    });
    places.collect()
}

/// The row of each token and the token, by rows, and by tokens where these are the same.
fn tokens_by_row(ids: IntTensor<Flex>, rows: usize) -> Vec<(usize, usize)> {
    let looked_up = looked_up(ids, rows).into_iter();
    let mut tokens: Vec<_> = looked_up.zip(0..).collect();
    tokens.sort_unstable();
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::flex::testing::random;
    use crate::{Container, PackedFormat, PackedMatrix};
    use burn::backend::ops::IntTensorOps;
    use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor};
    use burn::tensor::{Device, TensorData, f16};

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

    /// A row begins within a block of NF4, whose rows here are a block and a half.
    #[test]
    fn rows_of_a_packed_table_are_those_of_the_unpacked_one() {
        let (rows, width) = (11, 96);
        let numbers = random([rows, width], 1.0, 3);
        let as_bytes = values(&numbers).iter();
        let bytes = as_bytes.flat_map(|value| f16::from_f32(*value).to_le_bytes());
        let half = PackedMatrix::new(PackedFormat::F16, [rows, width], bytes.collect()).unwrap();
        let nf4 = PackedMatrix::nf4(values(&numbers), [rows, width]).unwrap();
        for matrix in [half, nf4] {
            let all = matrix.values();
            let table = packed::to_tensor(matrix, Container::Embedding, &Device::flex());
            let table = match Weight::from(table) {
                Weight::Quantized(table) => table,
                Weight::Float(_) => panic!("it is packed"),
            };
            let table = <DispatchTensor as DispatchKindConversion<Flex>>::try_into_backend(table);
            let table = Weight::Quantized(table.map(BackendTensor::quantized).unwrap());
            for tokens in [&[][..], &[10], &[3, 0, 10, 3]] {
                let found = select_rows(table.clone(), ids(tokens));
                let wanted = tokens
                    .iter()
                    .flat_map(|row| &all[*row as usize * width..][..width]);
                assert_eq!(found.shape(), Shape::from([tokens.len(), width]));
                assert_eq!(values(&found), wanted.copied().collect::<Vec<f32>>());
            }
        }
    }

    #[test]
    #[should_panic(expected = "id 3 of a table of 3 rows")]
    fn an_id_beyond_the_table_is_an_error() {
        select_rows_backward(random([2, 4], 1.0, 1), ids(&[0, 3]), 3);
    }
}
