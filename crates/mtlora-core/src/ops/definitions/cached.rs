//! Attention of one new token a row over a key-value cache. Consecutive heads of the query may share a head of
//! key and value, as in [`super::attention`].

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::{Shape, TensorData};

use crate::Contexts;

/// Places of the cache as `[rows, key-value heads, longest, head_dim]`.
fn gathered<B: Backend>(
    cache: FloatTensor<B>,
    places: &[i32],
    [rows, longest, heads]: [usize; 3],
) -> FloatTensor<B> {
    let width = cache.shape()[1];
    let data = TensorData::new(places.to_vec(), [rows * longest]);
    let device = cache.device();
    let found = B::float_select(cache, 0, B::int_from_data(data, &device));
    let shape = Shape::from([rows, longest, heads, width / heads]);
    B::float_permute(B::float_reshape(found, shape), &[0, 2, 1, 3])
}

pub(in crate::ops) fn forward<B: Backend>(
    query: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    contexts: &Contexts,
    heads: usize,
    scale: f64,
) -> FloatTensor<B> {
    let [rows, width] = [query.shape()[0], query.shape()[1]];
    let longest = contexts.longest();
    let (mut places, mut mask) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let context = contexts.row(row);
        let padding = longest - context.len();
        places.extend(context.iter().map(|slot| *slot as i32));
        places.extend(std::iter::repeat_n(0, padding));
        mask.extend(std::iter::repeat_n(0f32, context.len()));
        mask.extend(std::iter::repeat_n(f32::NEG_INFINITY, padding));
    }
    let head_dim = width / heads;
    let own = keys.shape()[1] / head_dim;
    let sizes = [rows, longest, own];
    let mask = TensorData::new(mask, [rows, 1, 1, longest]).convert_dtype(query.dtype());
    let mask = B::float_from_data(mask, &query.device());
    // The query heads that share a key head are the rows of its product.
    let query = B::float_reshape(query, Shape::from([rows, own, heads / own, head_dim]));
    let scores = B::float_matmul(
        query,
        B::float_transpose(gathered::<B>(keys, &places, sizes)),
    );
    let scores = B::float_add(B::float_mul_scalar(scores, Scalar::from(scale)), mask);
    let found = B::float_matmul(B::softmax(scores, 3), gathered::<B>(values, &places, sizes));
    B::float_reshape(found, Shape::from([rows, width]))
}
