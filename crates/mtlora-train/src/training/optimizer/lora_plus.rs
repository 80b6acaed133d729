//! LoRA+: learning rates of their own for an adapter's factors.

use burn::module::ParamGroup;
use mtlora_core::{AdapterMethod, Factor, RateGroup, factor_path};
use serde::{Deserialize, Serialize};

/// The learning rates of LoRA+ (arXiv 2402.12354), as ratios to the training's learning rate, which `A` and everything
/// that is not named here has.
///
/// As in PEFT's `create_loraplus_optimizer`, biases and other vectors that are trained have `B`'s learning rate. Adapters on
/// embeddings are treated like all others, where PEFT gives them a constant learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraPlus {
    /// The learning rate of `B` divided by that of `A`; PEFT's `loraplus_lr_ratio`. The paper advises about 16.
    pub lr_ratio: f64,
    /// The learning rate of the factors of `T` divided by that of `A`.
    pub lr_ratio_t: f64,
}

impl Default for LoraPlus {
    /// One learning rate for all.
    fn default() -> Self {
        Self {
            lr_ratio: 1.0,
            lr_ratio_t: 1.0,
        }
    }
}

impl LoraPlus {
    /// The ratio of the learning rate of biases and other vectors.
    pub(super) fn of_vectors(self) -> f64 {
        self.lr_ratio
    }

    /// The factors that have other learning rates than `A`, in groups that are alike: their parameters, the ratio, and
    /// whether weight decay applies.
    pub(super) fn groups(self) -> Vec<(ParamGroup, f64, bool)> {
        let mut groups = Vec::new();
        for (rate, ratio) in [
            (RateGroup::B, self.lr_ratio),
            (RateGroup::T, self.lr_ratio_t),
        ] {
            for decays in [true, false] {
                let found = factors(move |factor| factor.rate == rate && factor.decays == decays);
                if let Some(found) = found {
                    groups.push((found, ratio, decays));
                }
            }
        }
        groups
    }
}

/// The parameters that are factors of this kind in any method; `None` if no method has such a factor.
pub(super) fn factors(kind: impl Fn(&Factor) -> bool) -> Option<ParamGroup> {
    let all = AdapterMethod::all().flat_map(|method| method.factors());
    let paths: Vec<String> = all
        .filter(|factor| kind(factor))
        .map(|factor| factor_path("", factor.name))
        .collect();
    (!paths.is_empty()).then(|| ParamGroup::from_any_predicates(paths))
}
