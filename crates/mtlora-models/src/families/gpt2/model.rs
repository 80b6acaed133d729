//! The layers. Field names are those of Hugging Face's modules, so that a path ends as PEFT's users
//! know it: `c_attn`, `c_proj`, `c_fc`.

use std::path::Path;

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use mtlora_core::{
    ActivationDtype, BaseDtype, FusedProjections, SequenceOffsets, SequenceOffsetsError,
    adapted_embedding, adapted_linear, dropout, tied_cross_entropy, tied_logits,
};

use super::config::{Gpt2Config, OUTPUT_MAP, WORD_EMBEDDINGS};
use crate::error::ModelError;
use crate::files::checkpoint::Checkpoint;
use crate::files::weights::{self, CheckpointLayout};
use crate::layers::activation::Activation;
use crate::layers::attention::{self, Projections};
use crate::layers::feed_forward::widen;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::weights::{zero_embedding, zero_linear};
use crate::packed_batch::PackedBatch;
use crate::text::encoder::Tokens;

/// Causal self-attention.
#[derive(Module, Debug)]
pub struct Attention {
    /// Query, key and value side by side: `[n_embd, 3 n_embd]`.
    pub c_attn: Linear,
    /// Back into the residual stream: `[n_embd, n_embd]`.
    pub c_proj: Linear,
    /// On the attention probabilities.
    pub attn_dropout: Dropout,
    /// On the output.
    pub resid_dropout: Dropout,
    /// Heads and their width.
    #[module(skip)]
    pub attention: attention::Attention,
}

impl Attention {
    /// Query, key and value side by side: `[tokens, 3 n_embd]`.
    pub(super) fn project(&self, x: Tensor<2>) -> Projections {
        Projections::Fused(adapted_linear(&self.c_attn, x))
    }

    pub(super) fn output(&self, context: Tensor<2>) -> Tensor<2> {
        dropout(&self.resid_dropout, adapted_linear(&self.c_proj, context))
    }
}

/// The feed-forward half of a block.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[n_embd, n_inner]`
    pub c_fc: Linear,
    /// `[n_inner, n_embd]`
    pub c_proj: Linear,
    /// On the output.
    pub dropout: Dropout,
    /// The nonlinearity.
    #[module(skip)]
    pub activation: Activation,
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let wide = widen(&self.c_fc, self.activation, x);
        dropout(&self.dropout, adapted_linear(&self.c_proj, wide))
    }
}

/// One transformer block; its norms come before the two halves.
#[derive(Module, Debug)]
pub struct Block {
    /// Before attention.
    pub ln_1: LayerNorm,
    /// The first half.
    pub attn: Attention,
    /// Before the feed-forward half.
    pub ln_2: LayerNorm,
    /// The second half.
    pub mlp: Mlp,
}

impl Block {
    fn new(config: &Gpt2Config, device: &Device) -> Self {
        let width = config.n_embd;
        let norm = || LayerNorm::new(width, config.layer_norm_epsilon, device);
        let drop = |probability| DropoutConfig::new(probability).init();
        Self {
            ln_1: norm(),
            attn: Attention {
                c_attn: zero_linear(width, 3 * width, device),
                c_proj: zero_linear(width, width, device),
                attn_dropout: drop(config.attn_pdrop),
                resid_dropout: drop(config.resid_pdrop),
                attention: config.attention,
            },
            ln_2: norm(),
            mlp: Mlp {
                c_fc: zero_linear(width, config.n_inner, device),
                c_proj: zero_linear(config.n_inner, width, device),
                dropout: drop(config.resid_pdrop),
                activation: config.activation_function,
            },
        }
    }

    fn forward(&self, hidden: Tensor<2>, segments: &SequenceOffsets) -> Tensor<2> {
        let attention = &self.attn;
        let projections = attention.project(self.ln_1.forward(hidden.clone()));
        let context = attention.attention.over_batch(
            projections,
            segments,
            &attention.attn_dropout,
            ActivationDtype::beside(&attention.c_attn.weight),
        );
        self.feed_forward(hidden, context)
    }

    pub(super) fn feed_forward(&self, hidden: Tensor<2>, context: Tensor<2>) -> Tensor<2> {
        let hidden = hidden + self.attn.output(context);
        let added = self.mlp.forward(self.ln_2.forward(hidden.clone()));
        hidden + added
    }
}

/// GPT-2 without its output map.
#[derive(Module, Debug)]
pub struct Gpt2 {
    /// Token embeddings, which are the output map too unless the model has one of its own: `[vocab_size, n_embd]`.
    pub wte: Embedding,
    /// Position embeddings: `[n_positions, n_embd]`.
    pub wpe: Embedding,
    /// On the sum of both.
    pub drop: Dropout,
    /// The blocks, from the first to the last.
    pub h: Vec<Block>,
    /// The last norm.
    pub ln_f: LayerNorm,
}

impl Gpt2 {
    fn new(config: &Gpt2Config, device: &Device) -> Self {
        Self {
            wte: zero_embedding(config.vocab_size, config.n_embd, device),
            wpe: zero_embedding(config.n_positions, config.n_embd, device),
            drop: DropoutConfig::new(config.embd_pdrop).init(),
            h: (0..config.n_layer)
                .map(|_| Block::new(config, device))
                .collect(),
            ln_f: LayerNorm::new(config.n_embd, config.layer_norm_epsilon, device),
        }
    }

    pub(super) fn embed(&self, ids: Tensor<1, Int>, positions: Tensor<1, Int>) -> Tensor<2> {
        let words = adapted_embedding(&self.wte, ids);
        dropout(&self.drop, words + adapted_embedding(&self.wpe, positions))
    }

    /// The last hidden states, normed: `[tokens, n_embd]`.
    pub fn forward(&self, strip: &PackedBatch) -> Tensor<2> {
        let embedded = self.embed(strip.ids.clone(), strip.positions.clone());
        let hidden = self.h.iter().fold(embedded, |hidden, block| {
            block.forward(hidden, &strip.segments)
        });
        self.ln_f.forward(hidden)
    }

    /// The embeddings and the hidden states behind each block, the last of them normed, as Hugging
    /// Face's model returns them: each `[tokens, n_embd]`.
    pub fn hidden_states(&self, strip: &PackedBatch) -> Vec<Tensor<2>> {
        let mut states = vec![self.embed(strip.ids.clone(), strip.positions.clone())];
        for (index, block) in self.h.iter().enumerate() {
            states.push(block.forward(states[index].clone(), &strip.segments));
        }
        if let Some(last) = states.pop() {
            states.push(self.ln_f.forward(last));
        }
        states
    }
}

/// GPT-2 with its output map: `GPT2LMHeadModel`.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// `transformer` in the checkpoint.
    pub transformer: Gpt2,
    /// The output map, where it is not the token embeddings: `[vocab_size, n_embd]`, a row for each token as in those.
    pub lm_head: Option<Embedding>,
}

impl CausalLm {
    /// A model with random weights, as before any pre-training.
    ///
    /// # Errors
    /// Never, with a configuration that was read or made.
    pub fn fresh(config: &Gpt2Config, seed: u64, device: &Device) -> Result<Self, ModelError> {
        Self::fresh_in(BaseDtype::F32, config, seed, device)
    }

    /// As [`fresh`](Self::fresh), with the weights frozen and kept in `base_dtype`; each is converted
    /// when it is made.
    ///
    /// # Errors
    /// When the device does not have that precision.
    pub fn fresh_in(
        base_dtype: BaseDtype,
        config: &Gpt2Config,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        base_dtype.check(device)?;
        let model = Self::empty(config, config.tie_word_embeddings, device);
        weights::fresh(model, config, seed, |_| base_dtype)
    }

    /// Reads the model of a Hugging Face folder, as transformers 5 does where its tensors are all there. Where the
    /// configuration says that embeddings and output map are one weight, a file may have it by either name. If it has
    /// both names with different values, the model has two weights, whatever the configuration says.
    ///
    /// # Errors
    /// When tensors are missing, unexpected or of another shape, with their names.
    pub fn from_folder(
        folder: &Path,
        config: &Gpt2Config,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::from_folder_in(BaseDtype::F32, folder, config, device)
    }

    /// As [`from_folder`](Self::from_folder), with the weights frozen and kept in `base_dtype`; each is
    /// converted when it is read, so that the model is never there in 32 bits.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder), or when the device does not have that precision.
    pub fn from_folder_in(
        base_dtype: BaseDtype,
        folder: &Path,
        config: &Gpt2Config,
        device: &Device,
    ) -> Result<Self, ModelError> {
        base_dtype.check(device)?;
        let checkpoint = Checkpoint::open(folder)?;
        let tied = config.tie_word_embeddings && !has_two(&checkpoint, config)?;
        let model = Self::empty(config, tied, device);
        let dtype = |_: &str| base_dtype;
        let (model, _) = weights::read(model, &checkpoint, config, 0, |_| false, dtype)?;
        Ok(model)
    }

    /// Writes `model.safetensors` and `config.json` into `folder`, adapters folded in. The configuration says of the
    /// output map what is true of this model.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn save(self, folder: &Path, config: &Gpt2Config) -> Result<(), ModelError> {
        let mut config = config.clone();
        config.tie_word_embeddings = self.lm_head.is_none();
        weights::write(self.materialize(), folder, &config)
    }

    fn empty(config: &Gpt2Config, tied: bool, device: &Device) -> Self {
        Self {
            transformer: Gpt2::new(config, device),
            lm_head: (!tied).then(|| zero_embedding(config.vocab_size, config.n_embd, device)),
        }
    }

    /// What hidden states are multiplied with for logits: `[vocab_size, n_embd]`.
    fn output_map(&self) -> Tensor<2> {
        let map = self.lm_head.as_ref().unwrap_or(&self.transformer.wte);
        map.weight.val()
    }

    /// Logits over the vocabulary for every token: `[tokens, vocab_size]`. Training takes
    /// [`Self::loss`], which never holds as many.
    pub fn logits(&self, strip: &PackedBatch) -> Tensor<2> {
        self.vocabulary(self.transformer.forward(strip))
    }

    /// Logits from hidden states.
    pub(super) fn vocabulary(&self, hidden: Tensor<2>) -> Tensor<2> {
        tied_logits(hidden, self.output_map())
    }

    /// The sum of the cross-entropies of the batch's targets, with label smoothing: `[1]`.
    pub fn loss(&self, batch: &CausalBatch, label_smoothing: f64) -> Tensor<1> {
        let hidden = self.transformer.forward(&batch.strip);
        let rows = hidden.select(0, batch.places.clone());
        let targets = batch.targets.clone();
        tied_cross_entropy(rows, self.output_map(), targets, label_smoothing)
    }
}

/// Whether a checkpoint has both embeddings and output map, with different values.
fn has_two(checkpoint: &Checkpoint, config: &Gpt2Config) -> Result<bool, ModelError> {
    let prefix = config.prefix();
    let short = WORD_EMBEDDINGS.strip_prefix(prefix.as_str());
    let embeddings = std::iter::once(WORD_EMBEDDINGS)
        .chain(short)
        .find(|name| checkpoint.contains(name));
    match embeddings {
        Some(embeddings) if checkpoint.contains(OUTPUT_MAP) => {
            Ok(!checkpoint.is_equal(embeddings, OUTPUT_MAP)?)
        }
        _ => Ok(false),
    }
}

/// Query, key and value of GPT-2's `c_attn`, of which those named in `which` are adapted: letters
/// of `qkv`. None where another letter is in it, or none is.
pub fn fused_projections(which: &str) -> Option<FusedProjections> {
    let known = !which.is_empty() && which.chars().all(|letter| "qkv".contains(letter));
    known.then(|| FusedProjections {
        module: "c_attn".to_string(),
        adapted: "qkv".chars().map(|letter| which.contains(letter)).collect(),
    })
}

/// Sequences end to end, and which of their tokens are to be foretold.
#[derive(Clone, Debug)]
pub struct CausalBatch {
    /// The sequences.
    pub strip: PackedBatch,
    /// Rows of the strip from which a token is foretold: `[targets]`.
    pub places: Tensor<1, Int>,
    /// The tokens that follow them: `[targets]`.
    pub targets: Tensor<1, Int>,
    /// How many these are.
    pub count: usize,
}

impl CausalBatch {
    /// A batch of sequences, each with the indices of its tokens that count in the loss. The first
    /// token of a sequence, which nothing precedes, never counts.
    ///
    /// # Errors
    /// When there is no sequence, or an empty one.
    pub fn new<'a, C: IntoIterator<Item = usize>>(
        sequences: impl IntoIterator<Item = (&'a [u32], C)>,
        device: &Device,
    ) -> Result<Self, SequenceOffsetsError> {
        let (mut tokens, mut places, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for (ids, counted) in sequences {
            for index in counted.into_iter().filter(|index| *index > 0) {
                places.push((start + index - 1) as i32);
                targets.push(ids[index] as i32);
            }
            start += ids.len();
            tokens.push(Tokens {
                ids: ids.to_vec(),
                type_ids: vec![0; ids.len()],
            });
        }
        let strip = PackedBatch::at(&tokens.iter().collect::<Vec<_>>(), 0, device)?;
        let count = places.len();
        let ints = |values: Vec<i32>| Tensor::from_data(TensorData::new(values, [count]), device);
        Ok(Self {
            strip,
            places: ints(places),
            targets: ints(targets),
            count,
        })
    }
}
