#[cfg(target_arch = "x86_64")]
use std::ops::Range;

/// What of a product of matrices need not be multiplied, as under a causal mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops::flex) enum Triangle {
    /// Nothing.
    None,
    /// What lies above the product's diagonal: afterwards anything may be there.
    Product,
    /// What lies above the left matrix's diagonal: zeros.
    AboveLeft,
    /// What lies below the left matrix's diagonal: zeros.
    BelowLeft,
}

#[cfg(target_arch = "x86_64")]
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
            Triangle::Product => (columns.min(rows.end), 0..inner),
            Triangle::AboveLeft => (columns, 0..inner.min(rows.end)),
            Triangle::BelowLeft => (columns, inner.min(rows.start)..inner),
        }
    }
}
