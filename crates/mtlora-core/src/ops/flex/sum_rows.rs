use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;

use super::reduce::add_rows;
use super::{contiguous, made, tensor, values};

/// Columns that a task sums: enough that whole cache lines are read, and few enough that all threads have some.
const COLUMNS: usize = 128;

/// [`crate::ops::MtLoraBackend::sum_rows`], each column from the first row to the last.
pub(crate) fn sum_rows(x: FlexTensor) -> FlexTensor {
    let (x, width) = (contiguous(x.clone()), x.shape()[1]);
    let x = values(&x);
    let sums = made(width, COLUMNS, |index, sums| {
        add_rows(sums, x, width, index * COLUMNS)
    });
    tensor(sums, Shape::from([width]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::definitions::linear;
    use crate::ops::flex::testing::random;
    use burn::backend::Flex;

    /// In the order of Burn's own sum: biases train to the same bits as with it.
    #[test]
    fn columns_are_summed_from_the_first_row_to_the_last() {
        for [rows, width] in [[0, 3], [1, 1], [5, 3], [70, 300], [3, 128], [9, 0]] {
            let x = random([rows, width], 1.0, 1);
            let expected = linear::sum_rows::<Flex>(x.clone());
            // The memory that the output is likely to get.
            drop(vec![f32::NAN; width]);
            assert_eq!(values(&sum_rows(x.clone())), values(&expected));
            // A view, whose rows are columns in memory.
            let turned = contiguous(x.transpose(0, 1)).transpose(0, 1);
            assert_eq!(values(&sum_rows(turned)), values(&expected));
        }
    }
}
