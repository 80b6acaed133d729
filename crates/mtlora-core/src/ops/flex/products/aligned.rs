//! Memory for packed factors.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;

/// Elements whose alignment is larger than an allocator's usual one, as those of whole cache lines are.
///
/// A `Vec` of them asks the allocator for that alignment, and glibc (2.36, where this was measured) rarely reuses freed memory
/// for such a request: a training step's packed rows took new memory for each product. This allocates bytes, a few more than
/// needed, and begins at the first that is aligned.
pub(in crate::ops::flex) struct Aligned<T> {
    bytes: Vec<MaybeUninit<u8>>,
    /// The first element's place in the bytes.
    first: usize,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Copy> Aligned<T> {
    /// No element yet, and room for `capacity`.
    ///
    /// # Panics
    /// When that is more than memory can hold.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        #[expect(clippy::expect_used, reason = "as `Vec::with_capacity`")]
        let size = capacity
            .checked_mul(size_of::<T>())
            .and_then(|size| size.checked_add(align_of::<T>() - 1))
            .expect("capacity overflow");
        let mut bytes: Vec<MaybeUninit<u8>> = Vec::with_capacity(size);
        // SAFETY: bytes that need not be initialized are whatever they are.
        unsafe { bytes.set_len(size) };
        let first = bytes.as_ptr().align_offset(align_of::<T>());
        // The alignment is a power of two, and `size` has room for the bytes before the first that is aligned.
        assert!(first < align_of::<T>());
        Self {
            bytes,
            first,
            len: 0,
            elements: PhantomData,
        }
    }

    /// All its elements' memory, to be written before [`set_len`](Self::set_len).
    pub(super) fn memory(&mut self) -> &mut [MaybeUninit<T>] {
        let capacity = (self.bytes.len() - self.first) / size_of::<T>().max(1);
        let first = self.bytes[self.first..].as_mut_ptr();
        // SAFETY: these bytes are in this allocation, borrowed alone, and aligned.
        unsafe { std::slice::from_raw_parts_mut(first.cast(), capacity) }
    }

    /// Says how many elements, from the first, have been written.
    ///
    /// # Safety
    /// They have been.
    ///
    /// # Panics
    /// When `len` is larger than the capacity.
    pub(super) unsafe fn set_len(&mut self, len: usize) {
        assert!(len <= self.memory().len());
        self.len = len;
    }
}

impl<T: Copy> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let first = self.bytes[self.first..].as_ptr();
        // SAFETY: these elements are in this allocation, aligned, and have been written.
        unsafe { std::slice::from_raw_parts(first.cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(align(64))]
    struct Line([u32; 16]);

    #[test]
    fn elements_are_aligned_and_come_back() {
        for count in [0, 1, 7, 1000] {
            let mut lines = Aligned::<Line>::with_capacity(count);
            assert!(lines.is_empty());
            assert_eq!(lines.memory().as_ptr() as usize % 64, 0);
            for (index, line) in lines.memory()[..count].iter_mut().enumerate() {
                line.write(Line([index as u32; 16]));
            }
            // SAFETY: they have just been written.
            unsafe { lines.set_len(count) };
            let wanted: Vec<_> = (0..count).map(|index| Line([index as u32; 16])).collect();
            assert_eq!(*lines, *wanted);
        }
    }
}
