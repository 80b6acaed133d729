//! The sizes that all parts agree on.

/// Rows of a tile.
pub(super) const ROWS: usize = 6;
/// Columns of a tile: four registers of floats. Its 24 sums leave eight of the 32 registers for factors.
pub(super) const COLUMNS: usize = 16;
/// Elements of the inner dimension that are summed in one pass.
pub(super) const ELEMENTS: usize = 768;
/// The most panels of a task (192 KiB of floats, and half of that in bfloat16).
pub(super) const PANELS: usize = 4;
/// Products that are added up one by one, before the sum goes to the output.
pub(super) const CHAIN: usize = 384;
/// Floats of a register.
pub(super) const LANES: usize = 4;
/// Registers of a tile's row.
pub(super) const REGISTERS: usize = COLUMNS / LANES;
