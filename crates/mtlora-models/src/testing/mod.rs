//! What several tests of this crate use.

#[path = "../../../mtlora-core/tests/common/allocations.rs"]
pub(crate) mod allocations;
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    use super::allocations::thread_peak_of;

    #[test]
    fn the_peak_counts_what_was_freed_again() {
        let (kept, peak) = thread_peak_of(|| {
            drop(std::hint::black_box(vec![1u8; 1_000_000]));
            std::hint::black_box(vec![1u8; 1000])
        });
        assert_eq!(kept.len(), 1000);
        assert!((1_000_000..1_010_000).contains(&peak), "{peak}");
    }
}
