//! The operations, each with a body from Burn's own operations: its definition.

use burn::backend::tensor::{FloatTensor, IntTensor, QuantizedTensor};
use burn::backend::{Scalar, TensorMetadata, backend_extension};
use burn::tensor::{DType, FloatDType, Slice};

use super::definitions::activation_dtype::restored;
use super::definitions::{
    activation_dtype, adapted_norms, attention, cached, cross_entropy, dropout, embedding, gelu,
    linear, norm, optimizer, rms_norm, rotary, scaled_columns, squares, swiglu,
};
use super::{
    ActivationDtype, AdamWStep, AttentionConstants, AttentionForward, AttentionLayout,
    BackendCapabilities, Gelu, Optional, OptionalInt, RelativeTables, SeededDropout, Weight,
};
use crate::Contexts;

/// MTLoRA's operations on a backend's tensor primitives.
#[allow(clippy::too_many_arguments)]
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube")
)]
pub trait MtLoraBackend: BackendCapabilities {
    /// `x W + bias + scale ((z Aᵀ) Tᵀ) Bᵀ`, where `z` is `dropped` if given, else `x`.
    ///
    /// The weight is frozen: no gradient is made for it.
    ///
    /// # Shapes
    /// - `x`, `dropped`: `[tokens, in]`
    /// - `weight`: `[in, out]`, `bias`: `[out]`
    /// - `a`: `[rank, in]`, `t`: `[rank, rank]` (the identity if absent), `b`: `[out, rank]`
    /// - output: `[tokens, out]`
    #[fusion(default)]
    fn adapted_linear(
        x: FloatTensor<Self>,
        #[extension_type] dropped: Optional<Self>,
        #[extension_type] weight: Weight<Self>,
        #[extension_type] bias: Optional<Self>,
        a: FloatTensor<Self>,
        #[extension_type] t: Optional<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        Self::adapted_linear_and_projection(x, dropped, weight, bias, a, t, b, scale).0
    }

    /// The same, and the adapter's input in the rank's space, `z Aᵀ`: `[tokens, rank]`. The backward pass reads it.
    #[fusion(default)]
    fn adapted_linear_and_projection(
        x: FloatTensor<Self>,
        #[extension_type] dropped: Optional<Self>,
        #[extension_type] weight: Weight<Self>,
        #[extension_type] bias: Optional<Self>,
        a: FloatTensor<Self>,
        #[extension_type] t: Optional<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let z = dropped.into_option().unwrap_or_else(|| x.clone());
        let u = Self::rank_matmul(z, Self::float_transpose(a));
        let v = match t.into_option() {
            Some(t) => Self::rank_matmul(u.clone(), Self::float_transpose(t)),
            None => u.clone(),
        };
        let y = Self::mixed_linear(x, weight, bias);
        let y = Self::add_matmul(y, v, Self::float_transpose(b), scale);
        (y, u)
    }

    /// `x W + bias`. The weight may be kept in less precision than `x`.
    ///
    /// # Shapes
    /// - `x`: `[tokens, in]`
    /// - `weight`: `[in, out]`, `bias`: `[out]`
    /// - output: `[tokens, out]`
    #[fusion(default)]
    fn mixed_linear(
        x: FloatTensor<Self>,
        #[extension_type] weight: Weight<Self>,
        #[extension_type] bias: Optional<Self>,
    ) -> FloatTensor<Self> {
        linear::forward::<Self>(x, weight, bias.into_option())
    }

    /// The gradient of [`mixed_linear`](Self::mixed_linear)'s `x`: `dy Wᵀ`, `[tokens, in]`.
    #[fusion(default)]
    fn mixed_linear_backward(
        dy: FloatTensor<Self>,
        #[extension_type] weight: Weight<Self>,
    ) -> FloatTensor<Self> {
        linear::backward::<Self>(dy, weight)
    }

    /// The gradient of [`mixed_linear`](Self::mixed_linear)'s weight where it trains, `xᵀ dy`: `[in, out]`.
    #[fusion(default)]
    fn mixed_linear_weight_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        linear::weight_backward::<Self>(x, dy)
    }

    /// The sum over the rows of a matrix, `[columns]`: the gradient of a bias.
    #[fusion(default)]
    fn sum_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::sum_rows::<Self>(x)
    }

    /// Rows of an embedding table, in its precision, or in 32-bit floats where it is quantized.
    ///
    /// # Shapes
    /// - `table`: `[rows, width]`
    /// - `ids`: `[tokens]`
    /// - output: `[tokens, width]`
    #[fusion(default)]
    fn select_rows(
        #[extension_type] table: Weight<Self>,
        ids: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        embedding::forward::<Self>(table, ids)
    }

    /// The gradient of [`select_rows`](Self::select_rows)'s table, `[rows, width]`: each row of `dy` is added to the row that
    /// it was looked up from, in the order of the tokens.
    #[fusion(default)]
    fn select_rows_backward(
        dy: FloatTensor<Self>,
        ids: IntTensor<Self>,
        rows: usize,
    ) -> FloatTensor<Self> {
        embedding::backward::<Self>(dy, ids, rows)
    }

    /// `sum + scale a b`.
    ///
    /// # Shapes
    /// - `a`: `[rows, inner]`, `b`: `[inner, columns]`
    /// - `sum`, output: `[rows, columns]`
    #[fusion(default)]
    fn add_matmul(
        sum: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        linear::add_matmul::<Self>(sum, a, b, scale)
    }

    /// `a b`, where one of the sides is an adapter's rank. Either matrix may be a view of a transpose.
    ///
    /// # Shapes
    /// - `a`: `[rows, inner]`, `b`: `[inner, columns]`
    /// - output: `[rows, columns]`
    #[fusion(default)]
    fn rank_matmul(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::product::<Self>(a, b)
    }

    /// `sum + scale a b` by one kernel for all shapes, where the backend has it
    /// ([`Capabilities::fixes_products`](crate::Capabilities::fixes_products)). Either matrix may be a view of a transpose.
    ///
    /// # Shapes
    /// - `a`: `[rows, inner]`, `b`: `[inner, columns]`
    /// - `sum`: `[rows, columns]`, or `[1, columns]` for a row that is added to each; zeros if absent
    /// - output: `[rows, columns]`
    #[fusion(dtype = a, shape = burn::tensor::Shape::from([a[0], b[1]]))]
    fn fixed_product(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        #[extension_type] sum: Optional<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        linear::add::<Self>(sum.into_option(), Self::float_matmul(a, b), scale)
    }

    /// `x W + bias`, or `x Wᵀ` if `turned`, with a weight that is kept in words, where the backend unpacks them
    /// ([`Capabilities::unpacks_words`](crate::Capabilities::unpacks_words)).
    ///
    /// # Shapes
    /// - `x`: `[rows, in]`, or `[rows, out]` if `turned`
    /// - `weight`: `[in, out]`
    /// - `bias`: as many values as the output has columns
    /// - output: `[rows, out]`, or `[rows, in]` if `turned`
    #[fusion(dtype = x, shape = burn::tensor::Shape::from([x[0], weight[usize::from(!*turned)]]))]
    fn packed_product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        #[extension_type] bias: Optional<Self>,
        turned: bool,
    ) -> FloatTensor<Self> {
        let weight = Weight::Float(Self::unpack_words(weight));
        match turned {
            false => linear::forward::<Self>(x, weight, bias.into_option()),
            true => linear::backward::<Self>(x, weight),
        }
    }

    /// All values of a weight that is kept in words, in 32-bit floats; any shape.
    #[fusion(dtype = DType::F32, shape = weight)]
    fn unpack_words(weight: QuantizedTensor<Self>) -> FloatTensor<Self> {
        Self::dequantize(weight, FloatDType::F32)
    }

    /// [`select_rows`](Self::select_rows) of a table that is kept in words.
    #[fusion(dtype = DType::F32, shape = burn::tensor::Shape::from([ids[0], table[1]]))]
    fn packed_rows(table: QuantizedTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::float_select(Self::unpack_words(table), 0, ids)
    }

    /// The square of the length of each row of `Wᵀ + scale B A`, the adapted weights of an output, for DoRA. It counts as a
    /// constant: nothing gets a gradient. Rounding may leave a very small one below zero.
    ///
    /// # Shapes
    /// - `weight`: `[in, out]`
    /// - `a`: `[rank, in]`, `b`: `[out, rank]`
    /// - output: `[out]`
    #[fusion(default)]
    fn adapted_squared_norms(
        #[extension_type] weight: Weight<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        adapted_norms::squared::<Self>(weight, a, b, scale)
    }

    /// `x * factors + bias`, the same in each row.
    ///
    /// # Shapes
    /// - `x`, output: `[rows, columns]`
    /// - `factors`, `bias`: `[columns]`
    #[fusion(default)]
    fn scale_columns(
        x: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        #[extension_type] bias: Optional<Self>,
    ) -> FloatTensor<Self> {
        scaled_columns::forward::<Self>(x, factors, bias.into_option())
    }

    /// The gradients of [`scale_columns`](Self::scale_columns)'s `x` and `factors`.
    #[fusion(default)]
    fn scale_columns_backward(
        x: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        scaled_columns::backward::<Self>(x, factors, dy)
    }

    /// `softmax(scale Q Kᵀ) V` within each sequence and head; with `causal`, no token sees a later
    /// one. The probabilities are multiplied with the masks of `constants` and of `layout`, where there are any.
    ///
    /// # Shapes
    /// - `query`, output: `[tokens, heads * head_dim]`
    /// - `key`, `value`: `[tokens, key-value heads * head_dim]`
    #[fusion(dtype = query, shape = query)]
    fn segment_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        let inputs = attention::Inputs::new(query, key, value, constants.keep.into_option());
        attention::forward::<Self>(inputs, &layout)
    }

    /// The same, and the log-sum-exp of each row's scores, `[tokens, heads]`, if the backend has a kernel that reads it in the
    /// backward pass.
    #[fusion(meta = super::cube::attention_and_log_sum_exp)]
    fn segment_attention_and_log_sum_exp(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, Optional<Self>) {
        let output = Self::segment_attention(query, key, value, constants, layout);
        (output, Optional::Absent)
    }

    /// [`segment_attention`](Self::segment_attention) on query, key and value that lie side by side:
    /// `[tokens, 3 * heads * head_dim]`.
    #[fusion(dtype = fused, shape = attention::output_shape(fused))]
    fn fused_segment_attention(
        fused: FloatTensor<Self>,
        #[extension_type] constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        let [query, key, value] = attention::parts::<Self>(fused);
        Self::segment_attention(query, key, value, constants, layout)
    }

    /// The same, and the log-sum-exp of each row's scores, `[tokens, heads]`, if the backend has a kernel that reads it in the
    /// backward pass.
    #[fusion(meta = super::cube::fused_attention_and_log_sum_exp)]
    fn fused_segment_attention_and_log_sum_exp(
        fused: FloatTensor<Self>,
        #[extension_type] constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, Optional<Self>) {
        let output = Self::fused_segment_attention(fused, constants, layout);
        (output, Optional::Absent)
    }

    /// The gradient of [`fused_segment_attention`](Self::fused_segment_attention)'s `fused`, which may
    /// have been kept as the layout says.
    #[fusion(dtype = dy, shape = fused)]
    fn fused_segment_attention_backward(
        fused: FloatTensor<Self>,
        #[extension_type] constants: AttentionConstants<Self>,
        #[extension_type] forward: AttentionForward<Self>,
        dy: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        let [query, key, value] = attention::parts::<Self>(restored::<Self>(fused, &dy));
        let (dq, dk, dv) =
            Self::segment_attention_backward(query, key, value, constants, forward, dy, layout);
        Self::float_cat(vec![dq, dk, dv], 1)
    }

    /// The gradients of [`segment_attention`](Self::segment_attention)'s query, key and value, which may
    /// have been kept as the layout says.
    #[fusion(meta = super::cube::attention_gradients)]
    fn segment_attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] constants: AttentionConstants<Self>,
        #[extension_type] forward: AttentionForward<Self>,
        dy: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = forward;
        let [query, key, value] = [query, key, value].map(|kept| restored::<Self>(kept, &dy));
        let inputs = attention::Inputs::new(query, key, value, constants.keep.into_option());
        let [dq, dk, dv] = attention::backward::<Self>(&inputs, dy, &layout);
        (dq, dk, dv)
    }

    /// [`segment_attention`](Self::segment_attention) with scores of relative positions (DeBERTa's disentangled attention,
    /// arXiv 2006.03654): to each score, before the factor, the products of its query with the table's key for their
    /// distance and of its key with the table's query for it are added.
    ///
    /// # Shapes
    /// - as [`segment_attention`](Self::segment_attention)
    /// - each table: `[2 * longest - 1, heads * head_dim]`
    #[fusion(default)]
    fn relative_segment_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] tables: RelativeTables<Self>,
        #[extension_type] constants: AttentionConstants<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        let keep = constants.keep.into_option();
        let inputs = attention::Inputs {
            tables: tables.into_options(),
            ..attention::Inputs::new(query, key, value, keep)
        };
        attention::forward::<Self>(inputs, &layout)
    }

    /// The gradients of [`relative_segment_attention`](Self::relative_segment_attention)'s query, key, value and tables, all
    /// of which may have been kept as the layout says. Of the tables' gradients, keys before queries, those that are not
    /// `wanted` may be absent.
    #[fusion(default)]
    fn relative_segment_attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] tables: RelativeTables<Self>,
        #[extension_type] constants: AttentionConstants<Self>,
        dy: FloatTensor<Self>,
        layout: AttentionLayout,
        wanted: [bool; 2],
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        RelativeTables<Self>,
    ) {
        let _ = wanted;
        let restore = |kept| restored::<Self>(kept, &dy);
        let [query, key, value] = [query, key, value].map(restore);
        let tables = tables.into_options().map(|table| table.map(restore));
        let keep = constants.keep.into_option();
        let inputs = attention::Inputs {
            tables,
            ..attention::Inputs::new(query, key, value, keep)
        };
        let ([dq, dk, dv], d_tables) = attention::gradients::<Self>(&inputs, dy, &layout);
        (dq, dk, dv, RelativeTables::from(d_tables))
    }

    /// `x * mask`, the mask as `dropout` says; any shape.
    #[fusion(dtype = x, shape = x)]
    fn seeded_dropout(x: FloatTensor<Self>, dropout: SeededDropout) -> FloatTensor<Self> {
        dropout::forward::<Self>(x, dropout)
    }

    /// Each element rounded to bfloat16; any shape.
    #[fusion(dtype = DType::BF16, shape = x)]
    fn rounded(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_cast(x, DType::BF16.into())
    }

    /// Each element of what was [`rounded`](Self::rounded), in 32-bit floats.
    #[fusion(dtype = DType::F32, shape = kept)]
    fn widened(kept: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_cast(kept, DType::F32.into())
    }

    /// Each element rounded to bfloat16, in 32-bit floats and in bfloat16; any shape.
    #[fusion(meta = |x| (x.clone(), rounded_spec(x)))]
    fn rounded_values(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        activation_dtype::rounded_values::<Self>(x)
    }

    /// [`rounded_values`](Self::rounded_values) of attention's query, key and value: the values of each, and each in bfloat16.
    #[fusion(meta = |query, key, value| (
        (query.clone(), key.clone(), value.clone()),
        (rounded_spec(query), rounded_spec(key), rounded_spec(value)),
    ))]
    #[allow(clippy::type_complexity)]
    fn rounded_projections(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
    ) -> (
        (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>),
        (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>),
    ) {
        let [(query, q), (key, k), (value, v)] = [query, key, value].map(Self::rounded_values);
        ((query, key, value), (q, k, v))
    }

    /// The Gaussian error linear unit of each element, of any shape. `saved` says how `x` is kept for the backward pass;
    /// the output does not depend on it.
    #[fusion(default)]
    fn activate_gelu(
        x: FloatTensor<Self>,
        form: Gelu,
        saved: ActivationDtype,
    ) -> FloatTensor<Self> {
        let _ = saved;
        gelu::forward::<Self>(x, form)
    }

    /// The same, and the input [`rounded`](Self::rounded).
    #[fusion(meta = |x, _form| (x.clone(), rounded_spec(x)))]
    fn activate_gelu_and_rounded(
        x: FloatTensor<Self>,
        form: Gelu,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gelu::forward_and_rounded::<Self>(x, form)
    }

    /// The gradient of [`activate_gelu`](Self::activate_gelu)'s input, which may have been kept in
    /// bfloat16.
    #[fusion(default)]
    fn activate_gelu_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        form: Gelu,
    ) -> FloatTensor<Self> {
        match x.dtype() {
            DType::BF16 => Self::rounded_gelu_backward(x, dy, form),
            _ => gelu::backward::<Self>(x, dy, form),
        }
    }

    /// The same for an input that was kept in bfloat16.
    #[fusion(dtype = dy, shape = dy)]
    fn rounded_gelu_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        form: Gelu,
    ) -> FloatTensor<Self> {
        gelu::rounded_backward::<Self>(x, dy, form)
    }

    /// Layer normalisation of each row.
    ///
    /// # Shapes
    /// - `x`, output: `[rows, width]`
    /// - `gamma`, `beta`: `[width]`
    #[fusion(dtype = x, shape = x)]
    fn normalize_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        norm::forward::<Self>(x, gamma, beta, epsilon)
    }

    /// The gradient of [`normalize_rows`](Self::normalize_rows)'s `x`.
    #[fusion(dtype = x, shape = x)]
    fn normalize_rows_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        norm::backward::<Self>(x, gamma, dy, epsilon)
    }

    /// Layer normalisation of each row of `dropout(x) + residual`, and this sum, which the backward pass reads.
    ///
    /// # Shapes
    /// - `x`, `residual`, outputs: `[rows, width]`
    /// - `gamma`, `beta`: `[width]`
    #[fusion(meta = |x, _residual, _gamma, _beta, _dropout, _epsilon| (x.clone(), x.clone()))]
    fn add_and_normalize_rows(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        dropout: Option<SeededDropout>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::forward_of_sum::<Self>([x, residual], gamma, beta, dropout, epsilon)
    }

    /// The gradients of [`add_and_normalize_rows`](Self::add_and_normalize_rows)'s `x` and `residual`.
    #[fusion(meta = |_sum, _gamma, dy, _dropout, _epsilon| (dy.clone(), dy.clone()))]
    fn add_and_normalize_rows_backward(
        sum: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        dropout: Option<SeededDropout>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::backward_of_sum::<Self>(sum, gamma, dy, dropout, epsilon)
    }

    /// The gradient of [`normalize_rows`](Self::normalize_rows)'s `gamma`: `[width]`.
    #[fusion(default)]
    fn normalize_rows_gamma_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        norm::gamma_backward::<Self>(x, dy, epsilon)
    }

    /// Root mean square normalisation of each row.
    ///
    /// # Shapes
    /// - `x`, output: `[rows, width]`
    /// - `gamma`: `[width]`
    #[fusion(dtype = x, shape = x)]
    fn rms_normalize_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        rms_norm::forward::<Self>(x, gamma, epsilon)
    }

    /// The gradient of [`rms_normalize_rows`](Self::rms_normalize_rows)'s `x`.
    #[fusion(dtype = dy, shape = dy)]
    fn rms_normalize_rows_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        rms_norm::backward::<Self>(x, gamma, dy, epsilon)
    }

    /// The gradient of [`rms_normalize_rows`](Self::rms_normalize_rows)'s `gamma`: `[width]`.
    #[fusion(default)]
    fn rms_normalize_rows_gamma_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        rms_norm::gamma_backward::<Self>(x, dy, epsilon)
    }

    /// Each head turned by the angles of its token, whose cosines and sines are given. The heads are `2 * half` wide.
    ///
    /// # Shapes
    /// - `x`, output: `[tokens, heads * 2 * half]`
    /// - `cos`, `sin`: `[tokens, half]`
    #[fusion(dtype = x, shape = x)]
    fn rotate_heads(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        rotary::forward::<Self>(x, cos, sin)
    }

    /// `gate * sigmoid(gate) * up`, element by element, of any shape. `saved` says how both are kept for the backward
    /// pass; the output does not depend on it.
    #[fusion(default)]
    fn swiglu(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        saved: ActivationDtype,
    ) -> FloatTensor<Self> {
        let _ = saved;
        swiglu::forward::<Self>(gate, up)
    }

    /// The same, and both inputs [`rounded`](Self::rounded).
    #[fusion(meta = |gate, up| (gate.clone(), rounded_spec(gate), rounded_spec(up)))]
    fn swiglu_and_rounded(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        swiglu::forward_and_rounded::<Self>(gate, up)
    }

    /// The gradients of [`swiglu`](Self::swiglu)'s `gate` and `up`, which may have been kept in bfloat16.
    #[fusion(default)]
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if gate.dtype() == DType::BF16 {
            return Self::rounded_swiglu_backward(gate, up, dy);
        }
        let [d_gate, d_up] = swiglu::backward::<Self>(gate, up, dy);
        (d_gate, d_up)
    }

    /// The same for inputs that were kept in bfloat16.
    #[fusion(meta = |_gate, _up, dy| (dy.clone(), dy.clone()))]
    fn rounded_swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        swiglu::rounded_backward::<Self>(gate, up, dy)
    }

    /// The sum over rows of the cross-entropy of `hidden Eᵀ` with the targets, with label
    /// smoothing. Rows with a negative target have no loss, here and in the two operations below. No more than a chunk of
    /// the logits is held at a time.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, hidden]`
    /// - `embedding`: `[vocabulary, hidden]`
    /// - `targets`: `[rows]`
    /// - output: `[1]`
    #[fusion(default)]
    fn tied_cross_entropy(
        hidden: FloatTensor<Self>,
        #[extension_type] embedding: Weight<Self>,
        targets: IntTensor<Self>,
        smoothing: f64,
    ) -> FloatTensor<Self> {
        let [rows, vocabulary] = [hidden.shape()[0], embedding.sides()[0]];
        let capabilities = Self::capabilities(&hidden.device());
        let losses = cross_entropy::chunks(rows, vocabulary, capabilities).map(|range| {
            // The embedding is a linear map from tokens to hidden states, taken backward.
            let rows = cross_entropy::rows_of::<Self>(&hidden, &range);
            let logits = Self::mixed_linear_backward(rows, embedding.clone());
            let targets = Self::int_slice(targets.clone(), &[Slice::from(range)]);
            Self::float_sum(Self::cross_entropy_rows(logits, targets, smoothing))
        });
        cross_entropy::total::<Self>(losses, &hidden)
    }

    /// The cross-entropy of each row of logits.
    ///
    /// # Shapes
    /// - `logits`: `[rows, vocabulary]`
    /// - `targets`, output: `[rows]`
    #[fusion(dtype = logits, shape = burn::tensor::Shape::from([logits[0]]))]
    fn cross_entropy_rows(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        smoothing: f64,
    ) -> FloatTensor<Self> {
        cross_entropy::row_losses::<Self>(logits, targets, smoothing)
    }

    /// The same, and the gradient of the logits: `[rows, vocabulary]`.
    #[fusion(meta = |logits, _targets, _smoothing| {
        let losses = burn::tensor::Shape::from([logits.shape[0]]);
        let losses = burn::backend::fusion::custom::TensorSpec::new(losses, logits.dtype);
        (losses, logits.clone())
    })]
    fn cross_entropy_rows_and_gradients(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        smoothing: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        cross_entropy::row_losses_and_gradients::<Self>(logits, targets, smoothing)
    }

    /// The sum of the squares of all elements of up to five tensors of any shapes, and of what `before` has.
    ///
    /// # Shapes
    /// - `before`, output: `[1]`
    #[fusion(dtype = first, shape = burn::tensor::Shape::from([1]))]
    fn sum_of_squares(
        first: FloatTensor<Self>,
        #[extension_type] second: Optional<Self>,
        #[extension_type] third: Optional<Self>,
        #[extension_type] fourth: Optional<Self>,
        #[extension_type] fifth: Optional<Self>,
        #[extension_type] before: Optional<Self>,
    ) -> FloatTensor<Self> {
        let others = [second, third, fourth, fifth].into_iter();
        let others = others.filter_map(Optional::into_option);
        squares::sum_of_squares::<Self>(others, first, before.into_option())
    }

    /// Attention of one new token per row over a key-value cache: each row attends to the places of its
    /// context.
    ///
    /// # Shapes
    /// - `query`, output: `[rows, heads * head_dim]`
    /// - `keys`, `values`: `[places, key-value heads * head_dim]`
    /// - `places`: the contexts on the device, `[rows + 1 + places of all rows]`, given where the backend's kernels read
    ///   it, [`Capabilities::reads_offsets`](crate::Capabilities::reads_offsets)
    #[fusion(dtype = query, shape = query)]
    fn cached_attention(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        #[extension_type] places: OptionalInt<Self>,
        contexts: Contexts,
        heads: usize,
        scale: f64,
    ) -> FloatTensor<Self> {
        let _ = places;
        cached::forward::<Self>(query, keys, values, &contexts, heads, scale)
    }

    /// One step of AdamW (arXiv 1711.05101) after the first: the parameter and its two moments after the step. All four
    /// tensors have the same shape, which may be any.
    #[fusion(default)]
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [parameter, moment_1, moment_2] =
            optimizer::adamw::<Self>(parameter, gradient, [moment_1, moment_2], step);
        (parameter, moment_1, moment_2)
    }

    /// Each element times `factor`.
    #[fusion(default)]
    fn scaled(x: FloatTensor<Self>, factor: f64) -> FloatTensor<Self> {
        Self::float_mul_scalar(x, Scalar::from(factor))
    }
}

/// What is promised to fusion of a tensor that is rounded to bfloat16.
#[cfg(feature = "cube")]
fn rounded_spec(
    x: &burn::backend::fusion::custom::TensorSpec,
) -> burn::backend::fusion::custom::TensorSpec {
    burn::backend::fusion::custom::TensorSpec::new(x.shape.clone(), DType::BF16)
}

#[cfg(feature = "ndarray")]
impl MtLoraBackend for burn::backend::NdArray {}
