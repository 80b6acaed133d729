//! The scores of relative positions of one head of one sequence; `ops/definitions/relative_attention.rs` has what they are.
//!
//! Some rows of the scores are made at a time. Together they need a band of a table's rows, one more for each row of the
//! scores, so that the product with the band has few columns that nobody reads, and stays in the first cache.

use std::ops::Range;

use super::instructions::vectorized;
use super::products::view::{View, ViewMut};

/// Rows of the scores that are made at a time.
const BLOCK: usize = 32;

/// Query and key of a head, and its rows of the tables of keys and of queries that a sequence of this length reads:
/// `[length, head_dim]` and `[2 * length - 1, head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct HeadViews<'a> {
    pub query: View<'a>,
    pub key: View<'a>,
    pub tables: [Option<View<'a>>; 2],
}

impl HeadViews<'_> {
    /// The rows of the scores, or the columns, that are made at a time.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let [length, _] = self.query.sides();
        let firsts = (0..length).step_by(BLOCK);
        firsts.map(move |first| first..(first + BLOCK).min(length))
    }
}

/// The rows of the table of keys that these rows of the scores read.
fn band_of_keys(rows: &Range<usize>, length: usize) -> Range<usize> {
    length - rows.end..2 * length - 1 - rows.start
}

/// The rows of the table of queries that these columns of the scores read.
fn band_of_queries(columns: &Range<usize>, length: usize) -> Range<usize> {
    columns.start..length - 1 + columns.end
}

vectorized! {
    /// Adds to rows of the scores, `[rows, length]`, what their band has for them: `[rows, length - 1 + rows]`, of which each
    /// row begins one place before the row above it.
    fn add_to_rows(scores: &mut [f32], band: &[f32], length: usize) {
        let rows = scores.len() / length;
        let width = length - 1 + rows;
        let both = scores.chunks_exact_mut(length).zip(band.chunks_exact(width));
        for (row, (scores, band)) in both.enumerate() {
            let band = &band[rows - 1 - row..][..length];
            for (score, relative) in scores.iter_mut().zip(band) {
                *score += relative;
            }
        }
    }
}

vectorized! {
    /// Adds to `columns` columns of the scores, `[length, length]`, from the column `first` on, what their band has for them:
    /// `[columns, length - 1 + columns]`.
    fn add_to_columns(scores: &mut [f32], band: &[f32], length: usize, first: usize, columns: usize) {
        let width = length - 1 + columns;
        for (row, scores) in scores.chunks_exact_mut(length).enumerate() {
            let diagonal = band[length - 1 - row..].iter().step_by(width + 1);
            for (score, relative) in scores[first..first + columns].iter_mut().zip(diagonal) {
                *score += relative;
            }
        }
    }
}

vectorized! {
    /// The gradient of a band of [`add_to_rows`] from that of the scores.
    fn band_from_rows(band: &mut [f32], d_scores: &[f32], length: usize) {
        let rows = d_scores.len() / length;
        let width = length - 1 + rows;
        band.fill(0.0);
        let both = band.chunks_exact_mut(width).zip(d_scores.chunks_exact(length));
        for (row, (band, d_scores)) in both.enumerate() {
            band[rows - 1 - row..][..length].copy_from_slice(d_scores);
        }
    }
}

vectorized! {
    /// The gradient of a band of [`add_to_columns`] from that of the scores.
    fn band_from_columns(band: &mut [f32], d_scores: &[f32], length: usize, first: usize, columns: usize) {
        let width = length - 1 + columns;
        band.fill(0.0);
        for (row, d_scores) in d_scores.chunks_exact(length).enumerate() {
            let diagonal = band[length - 1 - row..].iter_mut().step_by(width + 1);
            for (relative, d_score) in diagonal.zip(&d_scores[first..first + columns]) {
                *relative = *d_score;
            }
        }
    }
}

vectorized! {
    fn add(sums: &mut [f32], parts: &[f32]) {
        for (sum, part) in sums.iter_mut().zip(parts) {
            *sum += part;
        }
    }
}

/// The first `size` elements, with whatever they held last.
fn sized(memory: &mut Vec<f32>, size: usize) -> &mut [f32] {
    if memory.len() < size {
        memory.resize(size, 0.0);
    }
    &mut memory[..size]
}

/// Adds to the scores, `[length, length]`, those of the tables. `product` multiplies two matrices into a third.
pub(super) fn add_scores(
    scores: &mut [f32],
    head: HeadViews<'_>,
    band: &mut Vec<f32>,
    product: impl Fn(ViewMut<'_>, View<'_>, View<'_>),
) {
    let [length, _] = head.query.sides();
    let [keys, queries] = head.tables;
    for block in head.blocks() {
        let sides = [block.len(), length - 1 + block.len()];
        let band = sized(band, sides[0] * sides[1]);
        if let Some(keys) = keys {
            let table = keys.rows(band_of_keys(&block, length));
            let rows = head.query.rows(block.clone());
            product(ViewMut::new(band, sides), rows, table.t());
            let scores = &mut scores[block.start * length..block.end * length];
            add_to_rows(scores, band, length);
        }
        if let Some(queries) = queries {
            let table = queries.rows(band_of_queries(&block, length));
            let rows = head.key.rows(block.clone());
            product(ViewMut::new(band, sides), rows, table.t());
            add_to_columns(scores, band, length, block.start, block.len());
        }
    }
}

/// Memory for the gradients of some rows: a band's, and a product's.
#[derive(Default)]
pub(super) struct BandBuffers {
    band: Vec<f32>,
    part: Vec<f32>,
}

/// Adds the gradients of the scores' tables to those of query and key, and to those of the tables that are given, each
/// `[2 * length - 1, head_dim]`.
///
/// # Safety
/// Every element of `d_query` and `d_key` has been written.
pub(super) unsafe fn add_gradients(
    d_scores: &[f32],
    head: HeadViews<'_>,
    [d_query, d_key]: [&mut ViewMut<'_>; 2],
    [mut d_keys, mut d_queries]: [Option<&mut [f32]>; 2],
    BandBuffers { band, part }: &mut BandBuffers,
    product: impl Fn(ViewMut<'_>, View<'_>, View<'_>),
) {
    let [length, head_dim] = head.query.sides();
    let [keys, queries] = head.tables;
    for block in head.blocks() {
        let sides = [block.len(), length - 1 + block.len()];
        let band = sized(band, sides[0] * sides[1]);
        // What the two tables have in common: the gradients of some tokens, and of a table's rows.
        let mut pass_on = |band: &[f32],
                           rows: Range<usize>,
                           [tokens, table]: [View<'_>; 2],
                           d_tokens: &mut ViewMut<'_>,
                           d_table: Option<&mut [f32]>| {
            let d_band = View::new(band, sides, sides[1]);
            let d_part = sized(part, block.len() * head_dim);
            let whole = [block.len(), head_dim];
            product(
                ViewMut::new(d_part, whole),
                d_band,
                table.rows(rows.clone()),
            );
            let mut d_tokens = d_tokens.part(block.clone(), 0..head_dim);
            // SAFETY: the caller has written all of it.
            unsafe { d_tokens.add(d_part) };
            if let Some(d_table) = d_table {
                let d_part = sized(part, rows.len() * head_dim);
                let tokens = tokens.rows(block.clone());
                product(
                    ViewMut::new(d_part, [rows.len(), head_dim]),
                    d_band.t(),
                    tokens,
                );
                add(
                    &mut d_table[rows.start * head_dim..rows.end * head_dim],
                    d_part,
                );
            }
        };
        if let Some(keys) = keys {
            band_from_rows(
                band,
                &d_scores[block.start * length..block.end * length],
                length,
            );
            let rows = band_of_keys(&block, length);
            pass_on(
                band,
                rows,
                [head.query, keys],
                d_query,
                d_keys.as_deref_mut(),
            );
        }
        if let Some(queries) = queries {
            band_from_columns(band, d_scores, length, block.start, block.len());
            let rows = band_of_queries(&block, length);
            pass_on(
                band,
                rows,
                [head.key, queries],
                d_key,
                d_queries.as_deref_mut(),
            );
        }
    }
}
