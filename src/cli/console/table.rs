//! Formats tables and numbers for terminals.

use crate::cli::console::output::printable;

/// Aligns the rows as columns, the first one to the left and the others to the right. Control characters are escaped.
pub(crate) fn aligned<R: AsRef<[String]>>(rows: &[R]) -> String {
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.as_ref().iter().map(|cell| printable(cell)).collect())
        .collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        let cells = row.iter().map(|cell| cell.chars().count());
        for (column, width) in cells.enumerate() {
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => line.push_str(&format!("{cell:<width$}")),
                _ => line.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Formats a number with four significant digits, or three in scientific notation.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if !value.is_finite() {
        "inf".into()
    } else if !(1e-3..1e4).contains(&size) {
        format!("{value:.2e}")
    } else {
        let before = size.log10().floor() as i32;
        let digits = usize::try_from(3 - before).unwrap_or(0);
        format!("{value:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_significant_digits() {
        let cases = [
            (0.0, "0"),
            (1.0, "1.000"),
            (-0.012345, "-0.01235"),
            (1234.4, "1234"),
            (12345.0, "1.23e4"),
            (1e-7, "1.00e-7"),
            (f64::INFINITY, "inf"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [
            vec!["a", "1"],
            vec!["long", "22", "±3"],
            vec!["\n", "4", "5"],
        ];
        let rows = rows.map(|row| row.into_iter().map(str::to_string).collect::<Vec<_>>());
        assert_eq!(aligned(&rows), "a      1\nlong  22  ±3\n\\n     4   5\n");
    }
}
