//! The sizes that all parts agree on.

/// Rows of a tile.
pub(super) const ROWS: usize = 6;
/// Columns of a tile: two registers. Its twelve sums leave four of the sixteen registers for factors.
pub(super) const COLUMNS: usize = 16;
/// Rows of the right matrix that are summed in one pass.
pub(super) const UNITS: usize = 768;
/// The most panels of a task (192 KiB).
pub(super) const PANELS: usize = 4;
/// Products that are added up one by one, before the sum goes to the output.
pub(super) const CHAIN: usize = 384;
/// Floats of a register.
pub(super) const LANES: usize = 8;
/// One column of a block's rows.
pub(super) type Rows = [f32; ROWS];
/// One row of a panel's columns.
pub(super) type Line = [f32; COLUMNS];
