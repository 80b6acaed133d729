//! What an adapter method declares.

use std::fmt;
use std::ops::Deref;

use burn::tensor::{Int, Tensor, TensorData};
use nalgebra::DMatrix;
use serde::{Serialize, Serializer};

use crate::adapter::action::{self, LinearInput, Update};
use crate::adapter::factors::Factors;
use crate::adapter::init::{Init, Start};

/// The widths and ranks from which the shapes of an adapter's factors follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The rank of each projection's update.
    pub rank: usize,
    /// The rank of the whole update: the rank times the number of adapted projections.
    pub total_rank: usize,
    /// The input width of the weight.
    pub input: usize,
    /// The output width of the adapted projections together.
    pub output: usize,
}

/// A trainable factor of an adapter, as its method declares it.
#[derive(Debug)]
pub struct Factor {
    /// The last name of the parameter's path, as in `query.weight.mtlora.a`. A name means the same in every
    /// method that has it.
    pub name: &'static str,
    /// The key of a linear layer's factor in PEFT's files, without the module's name: `lora_A.weight`.
    pub key: &'static str,
    /// The key of an embedding's factor in PEFT's files: `lora_embedding_A`.
    pub embedding_key: &'static str,
    /// The factor's shape, `[rows, columns]`.
    pub shape: fn(&Sizes) -> [usize; 2],
    /// Whether files have the factor as a vector, without its last side, which is 1.
    pub vector: bool,
    /// The values that the factor starts with.
    pub start: fn(Init) -> Start,
    /// The values with which `T` is the identity, so that `A` and `B` of a plain LoRA can be taken over. `A` and
    /// `B` themselves have none, nor can a start depend on the frozen weight here, as [`Start::OutputNorms`] does.
    pub neutral: Option<Start>,
    /// Whether weight decay applies to it.
    pub decays: bool,
    /// Whose learning rate it has where LoRA+ tells them apart.
    pub rate: RateGroup,
}

/// The groups of factors that LoRA+ (arXiv 2402.12354) trains with learning rates of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateGroup {
    /// `A`, which has the learning rate itself.
    A,
    /// `B`, and factors with a value for each output.
    B,
    /// What `T` is made of.
    T,
}

impl Factor {
    /// The name by which messages call the factor in a file: `lora_C`.
    pub fn file_name(&self) -> &'static str {
        self.key.strip_suffix(".weight").unwrap_or(self.key)
    }

    /// The shape in files of a factor of this shape.
    pub fn shape_in_files(&self, mut shape: Vec<usize>) -> Vec<usize> {
        if self.vector {
            shape.truncate(1);
        }
        shape
    }

    /// The factor's key in PEFT's files, without the module's name.
    pub fn key(&self, embedding: bool) -> &'static str {
        if embedding {
            self.embedding_key
        } else {
            self.key
        }
    }
}

/// The kinds of weights that not every method can adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKind {
    /// A weight that is adapted as a whole.
    Single,
    /// A weight of fused projections, some of which are adapted.
    Fused,
    /// An embedding.
    Embedding,
}

/// What an adapter method is: the factors that it trains, and what they do to a frozen weight.
///
/// The frozen weight `W` acts as `W + delta`, with `delta = scale * B T A` unless a method says otherwise. All
/// methods have `A` and `B`; `T` is made of the further factors.
pub trait MethodDefinition: fmt::Debug + Send + Sync + 'static {
    /// The lower-case name in files and flags; one word, without spaces.
    fn name(&self) -> &'static str;

    /// The trainable factors: `A`, `B`, and the further ones. Starting values are drawn in this order.
    fn factors(&self) -> &'static [Factor];

    /// The number by which alpha is divided to give the update's scale.
    fn alpha_divisor(&self, rank: usize, use_rslora: bool) -> f64 {
        let rank = rank as f64;
        if use_rslora { rank.sqrt() } else { rank }
    }

    /// Why the method cannot train from this start, as the end of the sentence "initialisation `zero` is not for
    /// structure `icfm`, ...".
    fn refuses(&self, _init: Init) -> Option<&'static str> {
        None
    }

    /// Why the method cannot adapt a weight of this kind, as the end of the sentence "`dora` cannot adapt query: ...".
    fn refuses_weight(&self, _kind: WeightKind) -> Option<&'static str> {
        None
    }

    /// `T` (`[total_rank, total_rank]`) from the further factors, or `None` where it is the identity.
    fn transform(&self, factors: &Factors<Tensor<2>>) -> Option<Tensor<2>>;

    /// [`Self::transform`] on the host, in double precision.
    fn transform_on_host(&self, factors: &Factors<DMatrix<f64>>) -> Option<DMatrix<f64>>;

    /// The update of the dense weight: `[out, in]`. `base` gives the frozen weight, `[out, in]`, to methods whose
    /// update depends on it.
    fn delta(&self, update: &Update, _base: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        action::delta(update)
    }

    /// A linear layer's output, `[tokens, out]`.
    fn linear(&self, update: Update, input: LinearInput) -> Tensor<2> {
        action::linear(update, input)
    }

    /// An embedding's output, `[tokens, out]`, for token numbers, `[tokens]`, whose frozen rows are `base`.
    fn embedding(&self, update: Update, base: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
        action::embedding(update, base, ids)
    }

    /// Whether the update is `scale * B T A`, so that it can be folded into plain LoRA, added up and described without the
    /// frozen weight.
    fn is_low_rank(&self) -> bool {
        true
    }

    /// Whether the scale may be `alpha / sqrt(rank)`, as with `use_rslora`.
    fn scales_by_root(&self) -> bool {
        true
    }

    /// Which rows of `A` and columns of `B` are in use, for methods that take some out; `None` where all are.
    fn kept(&self, _further: &Factors<TensorData>) -> Option<Vec<bool>> {
        None
    }

    /// Whether the method needs its [`TrainingHooks`](crate::TrainingHooks) in order to train.
    fn needs_hooks(&self) -> bool {
        false
    }
}

/// One of the adapter methods: a handle that is compared, written and read by its name.
///
/// ```
/// use mtlora_core::{AdapterMethod, Structure};
/// let method: AdapterMethod = "icfm".parse().unwrap();
/// assert_eq!(method, Structure::Icfm);
/// let keys: Vec<&str> = method.factors().iter().map(|factor| factor.key).collect();
/// assert_eq!(keys, ["lora_A.weight", "lora_B.weight", "lora_C.weight"]);
/// ```
#[derive(Clone, Copy)]
pub struct AdapterMethod(&'static dyn MethodDefinition);

impl AdapterMethod {
    /// The handle of a definition.
    pub(super) const fn new(definition: &'static dyn MethodDefinition) -> Self {
        Self(definition)
    }

    /// The factors beyond `A` and `B`.
    pub fn further_factors(self) -> impl Iterator<Item = &'static Factor> {
        let factors = self.0.factors().iter();
        factors.filter(|factor| !["a", "b"].contains(&factor.name))
    }

    /// The factor with this name.
    pub fn factor(self, name: &str) -> Option<&'static Factor> {
        self.0.factors().iter().find(|factor| factor.name == name)
    }

    /// A value for each of the factors beyond `A` and `B`.
    pub fn further<T>(self, mut value: impl FnMut(&'static Factor) -> T) -> Factors<T> {
        self.further_factors()
            .map(|factor| (factor.name, value(factor)))
            .collect()
    }
}

impl Deref for AdapterMethod {
    type Target = dyn MethodDefinition;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl PartialEq for AdapterMethod {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for AdapterMethod {}

impl fmt::Debug for AdapterMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdapterMethod({})", self.0.name())
    }
}

impl fmt::Display for AdapterMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Serialize for AdapterMethod {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.name())
    }
}
