//! How the losses of a step are averaged over its batches.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the losses of a step are averaged. Both ways are the same for steps of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossNormalization {
    /// The sum over all batches of the step is divided by the number of their examples or target tokens. Every
    /// example or token then has the same weight, however the step is split into batches.
    #[default]
    Step,
    /// The sum of each batch is divided by its own number of examples or target tokens, and these means are averaged
    /// over the batches. Tokens of a batch with few targets then have more weight. The published GPT-2 code
    /// (`--grad_acc`) and earlier builds of this program do this.
    Batch,
}

impl LossNormalization {
    /// Both ways.
    pub const ALL: [Self; 2] = [Self::Step, Self::Batch];

    /// The divisors of each batch of a step. `divisor_of` returns the divisor of the summed loss of some examples.
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

/// Adds the option to stored options that lack it. These were written by an earlier build, which always used
/// [`LossNormalization::Batch`].
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

/// The two numbers by which the summed loss of a batch is divided, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Divisors {
    /// The number of terms of the loss, in the whole step or in the batch.
    pub(crate) terms: f64,
    /// The number of batches if their means are averaged; otherwise 1.
    pub(crate) batches: f64,
}

impl Divisors {
    /// The divisors of each batch of a step whose loss has `terms` terms in total.
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

    /// Three batches with one, two and two examples, whose numbers of tokens are 3, 1, 4, 1, 5 and 9.
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
