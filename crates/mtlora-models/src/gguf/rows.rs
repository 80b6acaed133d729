//! The order of the rows of query and key in a model of llama.cpp's architecture `llama`, whose rotary positions turn
//! neighbours of a head, where Hugging Face's turn coordinates that lie half a head apart. (`LlamaModel.permute` in
//! llama.cpp's `conversion/llama.py`.)

/// Rows in Hugging Face's order, from rows in llama.cpp's. `values`: `[rows, any]`.
pub(crate) fn with_halves(values: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    in_order(values, rows, |row| stored_row(row, head_dim))
}

/// Rows in llama.cpp's order, from rows in Hugging Face's. `values`: `[rows, any]`.
pub(crate) fn with_neighbours(values: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let mut own = vec![0; rows];
    for row in 0..rows {
        own[stored_row(row, head_dim)] = row;
    }
    in_order(values, rows, |row| own[row])
}

/// Where llama.cpp has a row of Hugging Face's.
pub(super) fn stored_row(row: usize, head_dim: usize) -> usize {
    let half = head_dim / 2;
    let (head, within) = (row / head_dim, row % head_dim);
    head * head_dim + 2 * (within % half) + within / half
}

fn in_order(values: &[f32], rows: usize, from: impl Fn(usize) -> usize) -> Vec<f32> {
    let width = values.len() / rows.max(1);
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        out.extend_from_slice(&values[from(row) * width..][..width]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_order_is_the_inverse_of_the_other() {
        let values: Vec<f32> = (0..2 * 6 * 3).map(|at| at as f32).collect();
        let turned = with_neighbours(&values, 12, 6);
        // Coordinate 0 of the first half, then that of the second, which is row 3.
        assert_eq!(&turned[..6], &[0.0, 1.0, 2.0, 9.0, 10.0, 11.0]);
        assert_eq!(with_halves(&turned, 12, 6), values);
    }
}
