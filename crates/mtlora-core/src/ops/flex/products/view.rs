//! Matrices in slices: what a product reads, and where it writes.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// A matrix in a slice; every element lies within it.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct View<'a, E = f32> {
    values: &'a [E],
    sides: [usize; 2],
    strides: [usize; 2],
}

impl<'a, E> View<'a, E> {
    /// The matrix whose row `r` begins at `r * stride` and has its elements side by side.
    ///
    /// # Panics
    /// When it does not lie within the slice.
    pub(in crate::ops::flex) fn new(
        values: &'a [E],
        [rows, columns]: [usize; 2],
        stride: usize,
    ) -> Self {
        if rows > 0 && columns > 0 {
            assert!((rows - 1) * stride + columns <= values.len());
        }
        Self {
            values,
            sides: [rows, columns],
            strides: [stride, 1],
        }
    }

    /// The numbers of rows and columns.
    pub(in crate::ops::flex) fn sides(&self) -> [usize; 2] {
        self.sides
    }

    /// The distance from a row to the next, and from a column to the next, in elements.
    pub(in crate::ops::flex) fn strides(&self) -> [usize; 2] {
        self.strides
    }

    /// The slice; its first element is the matrix's.
    pub(in crate::ops::flex) fn values(&self) -> &'a [E] {
        self.values
    }

    /// Some of its rows.
    ///
    /// # Panics
    /// When the matrix does not have all of them.
    pub(in crate::ops::flex) fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.end <= self.sides[0]);
        let sides = [rows.len(), self.sides[1]];
        if rows.is_empty() || sides[1] == 0 {
            return Self { sides, ..self };
        }
        Self {
            values: &self.values[rows.start * self.strides[0]..],
            sides,
            ..self
        }
    }

    /// The same matrix in another slice of the same length.
    ///
    /// # Panics
    /// When it has another length.
    #[cfg(target_arch = "x86_64")]
    pub(in crate::ops::flex) fn of<F>(self, values: &'a [F]) -> View<'a, F> {
        assert_eq!(values.len(), self.values.len());
        View {
            values,
            sides: self.sides,
            strides: self.strides,
        }
    }

    /// Its transpose.
    pub(in crate::ops::flex) fn t(self) -> Self {
        let ([rows, columns], [row_stride, column_stride]) = (self.sides, self.strides);
        Self {
            sides: [columns, rows],
            strides: [column_stride, row_stride],
            ..self
        }
    }
}

/// A matrix to write to, whose rows lie `stride` apart. No other view has its elements, and they need not have
/// been written yet.
pub(in crate::ops::flex) struct ViewMut<'a> {
    first: *mut f32,
    sides: [usize; 2],
    stride: usize,
    borrowed: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

impl<'a> ViewMut<'a> {
    /// The matrix whose rows lie one after the other.
    ///
    /// # Panics
    /// When the slice has another length.
    pub(in crate::ops::flex) fn new(values: &'a mut [f32], [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(values.len(), rows * columns);
        Self {
            first: values.as_mut_ptr(),
            sides: [rows, columns],
            stride: columns,
            borrowed: PhantomData,
        }
    }

    /// The numbers of rows and columns.
    pub(in crate::ops::flex) fn sides(&self) -> [usize; 2] {
        self.sides
    }

    /// The distance from a row to the next, in elements.
    pub(in crate::ops::flex) fn stride(&self) -> usize {
        self.stride
    }

    /// Where the first row begins.
    pub(in crate::ops::flex) fn first(&mut self) -> *mut f32 {
        self.first
    }

    /// Writes one value to all its elements.
    pub(in crate::ops::flex) fn fill(&mut self, value: f32) {
        let [rows, columns] = self.sides;
        for row in 0..rows {
            let first = self.first.wrapping_add(row * self.stride);
            for column in 0..columns {
                // SAFETY: the matrix has this element, and only this view can reach it.
                unsafe { first.wrapping_add(column).write(value) };
            }
        }
    }

    /// Adds values, row after row, to its elements.
    ///
    /// # Safety
    /// Every element has been written.
    ///
    /// # Panics
    /// When there is not one value for each element.
    pub(in crate::ops::flex) unsafe fn add(&mut self, values: &[f32]) {
        let [rows, columns] = self.sides;
        assert_eq!(values.len(), rows * columns);
        for (row, values) in values.chunks(columns.max(1)).enumerate() {
            // SAFETY: the matrix has this row, only this view can reach its elements, and they have been written.
            let own = unsafe {
                std::slice::from_raw_parts_mut(self.first.wrapping_add(row * self.stride), columns)
            };
            for (own, value) in own.iter_mut().zip(values) {
                *own += value;
            }
        }
    }

    /// All of it, for as long as it itself is not used.
    pub(in crate::ops::flex) fn whole(&mut self) -> ViewMut<'_> {
        let [rows, columns] = self.sides;
        self.part(0..rows, 0..columns)
    }

    /// Some of its rows and columns, for as long as it itself is not used.
    ///
    /// # Panics
    /// When the matrix does not have all of them.
    pub(in crate::ops::flex) fn part(
        &mut self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> ViewMut<'_> {
        // SAFETY: the part lives as long as this view is borrowed, alone.
        unsafe { part(self.first, self.sides, self.stride, rows, columns) }
    }
}

/// Some rows and columns of a matrix that begins at `first`.
///
/// # Safety
/// For `'a`, all elements of the matrix may be written to, and no other reference or view has those of the part.
///
/// # Panics
/// When the matrix does not have all of them.
unsafe fn part<'a>(
    first: *mut f32,
    sides: [usize; 2],
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
) -> ViewMut<'a> {
    assert!(rows.start <= rows.end && rows.end <= sides[0]);
    assert!(columns.start <= columns.end && columns.end <= sides[1]);
    ViewMut {
        first: first.wrapping_add(rows.start * stride + columns.start),
        sides: [rows.len(), columns.len()],
        stride,
        borrowed: PhantomData,
    }
}

/// An output that tasks share: each has rows and columns of its own.
pub(in crate::ops::flex) struct Place<'a> {
    first: *mut f32,
    sides: [usize; 2],
    borrowed: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: it is a pointer into floats that it has borrowed alone, and who asks it for a view promises that
// no other view has its elements.
unsafe impl Send for Place<'_> {}
// SAFETY: the same.
unsafe impl Sync for Place<'_> {}

impl<'a> Place<'a> {
    /// Rows of `columns` elements, as many as there are; where `columns` is 0, any number.
    pub(in crate::ops::flex) fn new(out: &'a mut [MaybeUninit<f32>], columns: usize) -> Self {
        let rows = out.len().checked_div(columns).unwrap_or(usize::MAX);
        Self {
            first: out.as_mut_ptr().cast(),
            sides: [rows, columns],
            borrowed: PhantomData,
        }
    }

    /// Some rows and columns of it.
    ///
    /// # Safety
    /// While the view lives, no other view has any of its elements.
    ///
    /// # Panics
    /// When the output has fewer rows or columns.
    pub(in crate::ops::flex) unsafe fn view(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> ViewMut<'_> {
        // SAFETY: as the caller promises; the elements are borrowed for longer than this is.
        unsafe { part(self.first, self.sides, self.sides[1], rows, columns) }
    }
}
