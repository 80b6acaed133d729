#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::ops::Range;

/// What of a product of matrices need not be multiplied, as under a causal mask. For a block of rows
/// of a square matrix, the diagonal begins at a later column: the number is that column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops::flex) enum Triangle {
    /// Nothing.
    None,
    /// What lies above the product's diagonal: afterwards anything may be there.
    Product(usize),
    /// What lies above the left matrix's diagonal: zeros.
    AboveLeft(usize),
    /// What lies below the diagonal of the left matrix, which begins at a later row: zeros.
    BelowLeft(usize),
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Triangle {
    /// How many columns the product of some rows has, and over what its sums run.
    pub(in crate::ops::flex) fn needed(
        self,
        rows: &Range<usize>,
        inner: usize,
        columns: usize,
    ) -> (usize, Range<usize>) {
        match self {
            Triangle::None => (columns, 0..inner),
            Triangle::Product(first) => (columns.min(first + rows.end), 0..inner),
            Triangle::AboveLeft(first) => (columns, 0..inner.min(first + rows.end)),
            Triangle::BelowLeft(first) => {
                (columns, inner.min(rows.start.saturating_sub(first))..inner)
            }
        }
    }
}
