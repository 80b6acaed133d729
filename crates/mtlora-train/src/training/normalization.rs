//! What the losses of a step are divided by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the losses of a step's batches are divided by. With one batch to a step both are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossNormalization {
    /// The sum over all of the step's batches is divided by the number of their examples, or of the tokens that
    /// count. How a step is split into batches makes no difference then, and each example or token counts as much as
    /// any other of the step.
    #[default]
    Step,
    /// The sum of each batch is divided by its own number, and the sum of these means by the number of batches. A
    /// token of a batch with few counts for more then. The published GPT-2 code does this (`--grad_acc`), and
    /// so did earlier builds.
    Batch,
}

impl LossNormalization {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Step, Self::Batch];

    /// The divisors of each batch of a step; `divisor_of` says what the sum over some examples is divided by.
    pub(crate) fn divisors(
        self,
        batches: &[Vec<usize>],
        divisor_of: impl Fn(&[usize]) -> f64,
    ) -> Vec<Divisors> {
        match self {
            LossNormalization::Step => {
                let all = Divisors::step(divisor_of(&batches.concat()));
                vec![all; batches.len()]
            }
            LossNormalization::Batch => {
                let of = |batch: &Vec<usize>| Divisors {
                    terms: divisor_of(batch),
                    batches: batches.len() as f64,
                };
                batches.iter().map(of).collect()
            }
        }
    }
}

/// Says in stored options that do not say it, since an earlier build wrote them, what that build did: it knew
/// [`LossNormalization::Batch`] only.
pub(crate) fn of_earlier_builds(options: &mut toml::Table) {
    let batch = LossNormalization::Batch.to_string();
    options
        .entry("loss_normalization")
        .or_insert_with(|| batch.into());
}

impl fmt::Display for LossNormalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LossNormalization::Step => "step",
            LossNormalization::Batch => "batch",
        })
    }
}

impl FromStr for LossNormalization {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        LossNormalization::ALL
            .into_iter()
            .find(|known| known.to_string() == s)
            .ok_or_else(|| format!("unknown loss normalization `{s}`: one of step, batch"))
    }
}

/// The two numbers that the sum of a batch's losses is divided by, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Divisors {
    /// Terms of the loss: in the step, or in the batch alone.
    pub(crate) terms: f64,
    /// Batches, where their means are averaged; else 1.
    pub(crate) batches: f64,
}

impl Divisors {
    /// For each batch of a step whose loss has `terms` terms in all.
    pub(crate) fn step(terms: f64) -> Self {
        Self {
            terms,
            batches: 1.0,
        }
    }

    /// Whether both are finite and positive.
    pub(crate) fn divide(self) -> bool {
        [self.terms, self.batches]
            .into_iter()
            .all(|divisor| divisor.is_finite() && divisor > 0.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::training::options::TrainOptions;

    /// Three batches of examples with 3, 1, 4, 1, 5 and 9 tokens: of 4, 4 + 1 and 5 + 9 tokens, 23 in all.
    #[test]
    fn a_step_has_one_divisor_and_a_batch_its_own() {
        let batches = [vec![0, 1], vec![2, 3], vec![4, 5]];
        let tokens = |examples: &[usize]| -> f64 {
            let of = |example: &usize| [3.0, 1.0, 4.0, 1.0, 5.0, 9.0][*example];
            examples.iter().map(of).sum()
        };
        let pairs = |normalization: LossNormalization| -> Vec<(f64, f64)> {
            let all = normalization.divisors(&batches, tokens).into_iter();
            all.map(|one| (one.terms, one.batches)).collect()
        };
        assert_eq!(pairs(LossNormalization::Step), [(23.0, 1.0); 3]);
        let each = [(4.0, 3.0), (5.0, 3.0), (14.0, 3.0)];
        assert_eq!(pairs(LossNormalization::Batch), each);
    }

    #[test]
    fn one_batch_is_divided_the_same_way_by_both() {
        let batches = [vec![2, 0, 1]];
        let count = |examples: &[usize]| examples.len() as f64 + 1e-4;
        let [step, batch] = LossNormalization::ALL.map(|one| one.divisors(&batches, count));
        assert_eq!(step, batch);
    }

    #[test]
    fn nothing_is_divided_by_zero_or_by_what_is_no_number() {
        for (terms, divides) in [
            (1.0, true),
            (1e-4, true),
            (0.0, false),
            (-1.0, false),
            (f64::NAN, false),
            (f64::INFINITY, false),
        ] {
            assert_eq!(Divisors::step(terms).divide(), divides, "{terms}");
        }
    }

    #[test]
    fn what_earlier_builds_wrote_says_batch_and_what_is_said_stays() {
        let read = |text: &str| {
            let mut table: toml::Table = text.parse().unwrap();
            of_earlier_builds(&mut table);
            let options: TrainOptions = table.try_into().unwrap();
            options.loss_normalization
        };
        assert_eq!(read("epochs = 4"), LossNormalization::Batch);
        for one in LossNormalization::ALL {
            assert_eq!(read(&format!("loss_normalization = '{one}'")), one);
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for one in LossNormalization::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
            let json = serde_json::to_string(&one).unwrap();
            assert_eq!(json, format!("\"{one}\""));
        }
        let error = "mean".parse::<LossNormalization>().unwrap_err();
        assert!(
            error.contains("`mean`") && error.contains("step, batch"),
            "{error}"
        );
    }
}
