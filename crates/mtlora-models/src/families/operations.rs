//! How a family says which operations its forward pass makes.

/// Counts the operations of a model's matrix products. A family calls these methods in the order of its forward pass,
/// with the path of each module; `tracked`, and what is returned, say whether a value depends on something that trains.
pub trait OperationCounter {
    /// An embedding that is looked up for `rows` tokens.
    fn embedding(&mut self, module: &str, rows: f64) -> bool;

    /// A linear map of `[inputs, outputs]` values that is applied to `rows` tokens.
    fn linear(
        &mut self,
        module: &str,
        rows: f64,
        inputs_and_outputs: [usize; 2],
        tracked: bool,
    ) -> bool;

    /// Attention over `pairs` of a query and a key that it sees; `width` is that of all heads together.
    /// `query_key_value` says of each of the three whether it is tracked.
    fn attention(&mut self, pairs: f64, width: usize, query_key_value: [bool; 3]) -> bool;

    /// Products of `pairs` of rows that are `width` wide, such as a token's with a relative position's. `tracked` says it of
    /// either side.
    fn pair_products(&mut self, pairs: f64, width: usize, tracked: [bool; 2]) -> bool;

    /// Whether anything trains whose path begins with `prefix`.
    fn trains(&self, prefix: &str) -> bool;
}
