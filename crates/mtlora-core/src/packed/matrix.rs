//! A packed matrix, on the host.

use std::ops::Range;

use super::{GROUP, PackedFormat};

/// Why bytes are no packed matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rows} rows of {columns} values in {format} are not {bytes} bytes, or a row is no multiple of {GROUP} values"
)]
pub struct PackedError {
    rows: usize,
    columns: usize,
    format: &'static str,
    bytes: usize,
}

/// A matrix in a packed format, row after row. A linear layer's has a row for each output, `[out, in]`, as PyTorch's.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedMatrix {
    format: PackedFormat,
    sides: [usize; 2],
    bytes: Vec<u8>,
}

impl PackedMatrix {
    /// A matrix of `[rows, columns]`, of which each row is whole groups of [`GROUP`] values.
    ///
    /// # Errors
    /// When the bytes are too few or too many.
    pub fn new(
        format: PackedFormat,
        [rows, columns]: [usize; 2],
        bytes: Vec<u8>,
    ) -> Result<Self, PackedError> {
        let values = rows.checked_mul(columns).filter(|values| *values > 0);
        let expected = values.and_then(|values| format.bytes(values));
        if expected != Some(bytes.len()) || !columns.is_multiple_of(GROUP) {
            return Err(PackedError {
                rows,
                columns,
                format: format.name(),
                bytes: bytes.len(),
            });
        }
        let sides = [rows, columns];
        Ok(Self {
            format,
            sides,
            bytes,
        })
    }

    /// `values`, `[out, in]`, in bitsandbytes' NF4 with double quantization, and with blocks of 64 (arXiv 2305.14314).
    ///
    /// # Errors
    /// When a row is no multiple of [`GROUP`] values.
    ///
    /// # Panics
    /// When there is not a value for each element.
    pub fn nf4(values: &[f32], sides: [usize; 2]) -> Result<Self, PackedError> {
        assert_eq!(values.len(), sides[0] * sides[1]);
        Self::new(PackedFormat::Nf4, sides, super::nf4::pack(values))
    }

    /// The format.
    pub fn format(&self) -> PackedFormat {
        self.format
    }

    /// Rows and columns.
    pub fn sides(&self) -> [usize; 2] {
        self.sides
    }

    /// All values, row after row.
    pub fn values(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.sides[0] * self.sides[1]];
        self.format.unpack_groups(&self.bytes, 0, &mut out);
        out
    }

    /// Whether all values are numbers.
    pub fn is_finite(&self) -> bool {
        const GROUPS: usize = 64;
        let groups = self.sides[0] * self.sides[1] / GROUP;
        let mut out = vec![0.0; GROUPS * GROUP];
        (0..groups).step_by(GROUPS).all(|first| {
            let count = GROUPS.min(groups - first);
            let out = &mut out[..count * GROUP];
            self.format.unpack_groups(&self.bytes, first, out);
            out.iter().all(|value| value.is_finite())
        })
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The matrix with its rows in another order: row `r` is row `from(r)` of this one. `None` for a format whose blocks may
    /// span two rows.
    pub fn with_rows(&self, from: impl Fn(usize) -> usize) -> Option<Self> {
        let [rows, columns] = self.sides;
        let row = self.format.bytes(columns)?;
        if row * rows != self.bytes.len() {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for index in 0..rows {
            bytes.extend_from_slice(self.bytes.get(from(index) * row..)?.get(..row)?);
        }
        Some(Self {
            format: self.format,
            sides: self.sides,
            bytes,
        })
    }
}

/// A packed matrix in a tensor's memory.
#[derive(Clone, Copy)]
pub(crate) struct PackedView<'a> {
    pub(super) format: PackedFormat,
    pub(super) sides: [usize; 2],
    pub(super) turned: bool,
    pub(super) bytes: &'a [u8],
}

impl PackedView<'_> {
    /// Rows and columns.
    pub(crate) fn sides(&self) -> [usize; 2] {
        self.sides
    }

    /// Whether the tensor is the transpose of the matrix, as a linear layer's is.
    pub(crate) fn is_turned(&self) -> bool {
        self.turned
    }

    /// How its values are kept.
    pub(crate) fn format(&self) -> PackedFormat {
        self.format
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Unpacks whole rows.
    pub(super) fn unpack_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let columns = self.sides[1];
        let out = &mut out[..rows.len() * columns];
        self.format
            .unpack_groups(self.bytes, rows.start * columns / GROUP, out);
    }
}

/// The columns of all groups that some columns lie in.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) fn whole_groups(columns: &Range<usize>) -> Range<usize> {
    columns.start / GROUP * GROUP..columns.end.next_multiple_of(GROUP)
}
