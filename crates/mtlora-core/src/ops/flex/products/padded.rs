/// The values, at most `LENGTH`, and zeros after them.
#[inline(always)]
pub(super) fn padded<E: Copy + Default, const LENGTH: usize>(values: &[E]) -> [E; LENGTH] {
    <[E; LENGTH]>::try_from(values).unwrap_or_else(|_| {
        let mut padded = [E::default(); LENGTH];
        padded[..values.len()].copy_from_slice(values);
        padded
    })
}
