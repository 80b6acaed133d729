//! Which row of the relative-position embeddings a pair of tokens has.

/// How distances become rows of the relative-position embeddings: one by one while they are small, and logarithmically in
/// buckets where the configuration has these (`make_log_bucket_position` in `transformers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeBuckets {
    /// `position_buckets`, where there are buckets.
    pub(super) buckets: Option<usize>,
    /// `max_relative_positions`, or `max_position_embeddings` where that is not given.
    pub(super) max_distance: usize,
}

/// The rows that the sequences of a batch need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DistanceRows {
    /// The distinct rows of the embeddings, each once.
    pub rows: Vec<u32>,
    /// For each distance, from a key as far before its query as the longest sequence allows to one as far after it, the place
    /// of its row in `rows`. `None` where each distance has a row of its own, in this order.
    pub by_distance: Option<Vec<u32>>,
}

impl RelativeBuckets {
    /// Rows on each side of distance 0.
    pub(super) fn span(self) -> usize {
        self.buckets.unwrap_or(self.max_distance)
    }

    /// The row of a query that stands `distance` places after its key.
    fn row(self, distance: i64) -> u32 {
        let span = self.span() as i64;
        let row = self.bucket(distance).saturating_add(span);
        row.clamp(0, 2 * span - 1) as u32
    }

    /// In 32-bit floats, as `transformers` computes it.
    fn bucket(self, distance: i64) -> i64 {
        let Some(buckets) = self.buckets else {
            return distance;
        };
        let mid = (buckets / 2) as i64;
        if distance.abs() <= mid {
            return distance;
        }
        let relative = distance.unsigned_abs() as f32 / mid as f32;
        let largest = ((self.max_distance as f64 - 1.0) / mid as f64) as f32;
        let steps = (relative.ln() / largest.ln() * (mid - 1) as f32).ceil();
        let bucket = (steps + mid as f32) as i64;
        bucket * distance.signum()
    }

    /// The rows for sequences of up to `longest` tokens.
    pub(super) fn rows(self, longest: usize) -> DistanceRows {
        let farthest = longest.max(1) as i64 - 1;
        let mut rows: Vec<u32> = Vec::new();
        let mut by_distance = Vec::new();
        // Distances fall, and so do their rows.
        for key_after_query in -farthest..=farthest {
            let row = self.row(-key_after_query);
            if rows.last() != Some(&row) {
                rows.push(row);
            }
            by_distance.push(rows.len() as u32 - 1);
        }
        let each_has_its_own = rows.len() == by_distance.len();
        DistanceRows {
            rows,
            by_distance: (!each_has_its_own).then_some(by_distance),
        }
    }

    /// How many distinct rows a sequence of `length` tokens needs.
    pub(super) fn count(self, length: usize) -> usize {
        self.rows(length).rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// transformers 5.24: `make_log_bucket_position(distance, 256, 512)`, DeBERTaV3-base's, and of `(8, 64)`.
    #[test]
    fn buckets_are_those_of_transformers() {
        let base = RelativeBuckets {
            buckets: Some(256),
            max_distance: 512,
        };
        for (distance, bucket) in [
            (0, 0),
            (1, 1),
            (127, 127),
            (128, 128),
            (129, 129),
            (130, 130),
            (150, 143),
            (200, 169),
            (300, 207),
            (400, 233),
            (500, 254),
            (511, 255),
            (600, 270),
        ] {
            assert_eq!(base.bucket(distance), bucket, "{distance}");
            assert_eq!(base.bucket(-distance), -bucket, "-{distance}");
        }
        assert_eq!([base.row(600), base.row(-600), base.row(0)], [511, 0, 256]);
        let small = RelativeBuckets {
            buckets: Some(8),
            max_distance: 64,
        };
        let found: Vec<i64> = (0..20).map(|distance| small.bucket(distance)).collect();
        assert_eq!(
            found,
            [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6]
        );
    }

    #[test]
    fn each_row_is_needed_once() {
        let small = RelativeBuckets {
            buckets: Some(8),
            max_distance: 64,
        };
        let near = small.rows(5);
        assert_eq!(near.rows, [12, 11, 10, 9, 8, 7, 6, 5, 4]);
        assert_eq!(near.by_distance, None);
        let far = small.rows(8);
        assert_eq!(far.rows, [13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3]);
        let places = [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10];
        assert_eq!(far.by_distance.as_deref(), Some(places.as_slice()));
        assert_eq!(small.count(8), 11);
        let single = RelativeBuckets {
            buckets: None,
            max_distance: 4,
        };
        assert_eq!(single.rows(1).rows, [4]);
        assert_eq!(single.rows(7).rows, [7, 6, 5, 4, 3, 2, 1, 0]);
    }
}
