//! When AdaLoRA prunes, and how much.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::AdaLora;
use crate::adapter::hooks::HookError;

/// What happens to the mask in AdaLoRA's last steps ([`AdaLoraSchedule::final_steps`]). The two published codes differ in
/// nothing else, and agree exactly where the first of these steps is a multiple of the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FinalPhase {
    /// The first of these steps masks whatever the interval is, and the pattern stays: PEFT's `rank_pattern`.
    #[default]
    FixedPattern,
    /// The first of these steps masks only if it is a multiple of the interval; each later one masks by the scores as they
    /// were before: the authors' `loralib`.
    FrozenScores,
}

impl FinalPhase {
    /// Every form, the default first.
    pub const ALL: [FinalPhase; 2] = [FinalPhase::FixedPattern, FinalPhase::FrozenScores];

    /// The name, as flags and files have it.
    pub fn name(self) -> &'static str {
        match self {
            FinalPhase::FixedPattern => "fixed-pattern",
            FinalPhase::FrozenScores => "frozen-scores",
        }
    }
}

impl fmt::Display for FinalPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FinalPhase {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = FinalPhase::ALL.into_iter();
        all.find(|phase| phase.name() == name).ok_or_else(|| {
            let names = FinalPhase::ALL.map(FinalPhase::name).join(", ");
            format!("unknown final phase `{name}`: one of {names}")
        })
    }
}

/// When AdaLoRA prunes, and how much. Steps are counted from 0, as in both published codes. The last step of a training
/// always masks to the target, also without `final_steps`. Files have the fields by PEFT's names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaLoraSchedule {
    /// The average rank of an adapter at the end; PEFT's `target_r`.
    #[serde(rename = "target_r")]
    pub target_rank: usize,
    /// Steps at the start in which nothing is masked; PEFT's `tinit`.
    #[serde(rename = "tinit")]
    pub initial_steps: usize,
    /// Steps at the end in which the mask stays as it is; PEFT's `tfinal`.
    #[serde(rename = "tfinal")]
    pub final_steps: usize,
    /// Steps from one masking to the next in between; PEFT's `deltaT`.
    #[serde(rename = "deltaT")]
    pub interval: usize,
    /// How much of the average sensitivity a step keeps, in `(0, 1)`; PEFT's `beta1`.
    #[serde(rename = "beta1")]
    pub sensitivity_decay: f64,
    /// How much of the average uncertainty a step keeps, in `(0, 1)`; PEFT's `beta2`.
    #[serde(rename = "beta2")]
    pub uncertainty_decay: f64,
    /// The weight of the penalty that keeps `A` and `B` orthogonal; PEFT's `orth_reg_weight`.
    #[serde(rename = "orth_reg_weight")]
    pub penalty: f64,
    /// What happens to the mask in the last steps.
    pub final_phase: FinalPhase,
}

impl Default for AdaLoraSchedule {
    /// PEFT's defaults.
    fn default() -> Self {
        Self {
            target_rank: 8,
            initial_steps: 0,
            final_steps: 0,
            interval: 1,
            sensitivity_decay: 0.85,
            uncertainty_decay: 0.85,
            penalty: 0.5,
            final_phase: FinalPhase::FixedPattern,
        }
    }
}

impl AdaLoraSchedule {
    /// Checks the range of each number, for a training of `steps` steps.
    ///
    /// # Errors
    /// When a number is out of range; the error gives the first by its name in PEFT's files.
    pub fn check(&self, steps: usize) -> Result<(), HookError> {
        let fraction = |value: f64| value > 0.0 && value < 1.0;
        let pruned = steps.saturating_sub(self.final_steps);
        let count = |value: usize| value as f64;
        let checks = [
            (
                self.target_rank > 0,
                "target_r",
                count(self.target_rank),
                "it must be at least 1",
            ),
            (
                pruned > 1,
                "tfinal",
                count(self.final_steps),
                "at least two steps must come before the final ones",
            ),
            (
                self.initial_steps < pruned,
                "tinit",
                count(self.initial_steps),
                "tinit and tfinal together must be less than the number of steps",
            ),
            (
                self.interval > 0,
                "deltaT",
                count(self.interval),
                "it must be at least 1",
            ),
            (
                fraction(self.sensitivity_decay),
                "beta1",
                self.sensitivity_decay,
                "it must be between 0 and 1",
            ),
            (
                fraction(self.uncertainty_decay),
                "beta2",
                self.uncertainty_decay,
                "it must be between 0 and 1",
            ),
            (
                self.penalty.is_finite() && self.penalty >= 0.0,
                "orth_reg_weight",
                self.penalty,
                "it must not be negative",
            ),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            None => Ok(()),
            Some((_, setting, value, wanted)) => Err(HookError::Setting {
                method: AdaLora.into(),
                setting,
                value,
                steps,
                wanted,
            }),
        }
    }

    /// Checks that adapters that start with this rank, on average, can be pruned to the target.
    ///
    /// # Errors
    /// When the target is above it.
    pub fn check_rank(&self, rank: usize, steps: usize) -> Result<(), HookError> {
        if self.target_rank <= rank {
            return Ok(());
        }
        Err(HookError::Setting {
            method: AdaLora.into(),
            setting: "target_r",
            value: self.target_rank as f64,
            steps,
            wanted: "it must be at most the rank that the adapters start with (init_r)",
        })
    }

    /// The step from which the mask stays as it is.
    pub(super) fn settles(&self, steps: usize) -> usize {
        let end = steps.saturating_sub(self.final_steps);
        end.min(steps.saturating_sub(1))
    }

    /// The budget after step `step`, counted from 0, of `steps`.
    pub(super) fn budget(
        &self,
        step: usize,
        steps: usize,
        Triplets { all, target }: Triplets,
    ) -> Budget {
        let end = steps.saturating_sub(self.final_steps);
        let due = step.is_multiple_of(self.interval);
        if step <= self.initial_steps && step + 1 < steps {
            return Budget {
                left: all,
                masks: false,
            };
        }
        if step >= self.settles(steps) {
            let begins = step == end && step + 1 < steps;
            return Budget {
                left: target,
                masks: due || !begins || self.final_phase == FinalPhase::FixedPattern,
            };
        }
        let past = (step - self.initial_steps) as f64 / (end - self.initial_steps) as f64;
        let pruned = all as f64 - target as f64;
        Budget {
            left: (pruned * (1.0 - past).powi(3) + target as f64) as usize,
            masks: due,
        }
    }
}

/// The numbers of triplets of all adapters together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Triplets {
    /// At the start.
    pub(super) all: usize,
    /// At the end.
    pub(super) target: usize,
}

/// What is pruned after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Budget {
    /// The number of triplets that may be left.
    pub(super) left: usize,
    /// Whether the others are masked after this step.
    pub(super) masks: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_budget_falls_with_the_cube() {
        let schedule = AdaLoraSchedule {
            initial_steps: 2,
            final_steps: 5,
            interval: 2,
            ..AdaLoraSchedule::default()
        };
        // By hand: from 6 to 2 between the steps 2 and 15, as int(4 (1 - (t - 2) / 13)^3 + 2).
        let triplets = Triplets { all: 6, target: 2 };
        let budget = |step| {
            let Budget { left, masks } = schedule.budget(step, 20, triplets);
            (left, masks)
        };
        assert_eq!(budget(1), (6, false));
        assert_eq!(budget(2), (6, false));
        assert_eq!(budget(3), (5, false));
        assert_eq!(budget(4), (4, true));
        assert_eq!(budget(8), (2, true));
        assert_eq!(budget(15), (2, true));
        assert_eq!(budget(16), (2, true));
    }

    #[test]
    fn the_last_step_masks_to_the_target_in_both_forms() {
        let triplets = Triplets { all: 6, target: 2 };
        for (final_phase, final_steps, first) in [
            (FinalPhase::FixedPattern, 4, true),
            (FinalPhase::FrozenScores, 4, false),
            (FinalPhase::FixedPattern, 0, true),
            (FinalPhase::FrozenScores, 0, true),
        ] {
            let schedule = AdaLoraSchedule {
                final_steps,
                final_phase,
                interval: 7,
                ..AdaLoraSchedule::default()
            };
            let budget = |step| schedule.budget(step, 20, triplets);
            let settles = schedule.settles(20);
            assert_eq!(settles, if final_steps == 0 { 19 } else { 16 });
            let Budget { left, masks } = budget(settles);
            assert_eq!((left, masks), (2, first), "{final_phase}");
            assert!(budget(14).masks);
            for step in settles + 1..20 {
                assert_eq!((budget(step).left, budget(step).masks), (2, true));
            }
        }
    }

    proptest! {
        #[test]
        fn the_budget_falls_from_all_to_the_target(
            steps in 2usize..200, initial in 0.0..1.0f64, last in 0.0..1.0f64, interval in 1usize..9,
            target in 1usize..40, pruned in 0usize..60, frozen: bool,
        ) {
            let final_steps = (last * (steps - 1) as f64) as usize;
            let schedule = AdaLoraSchedule {
                initial_steps: (initial * (steps - final_steps) as f64) as usize,
                final_steps,
                interval,
                final_phase: FinalPhase::ALL[usize::from(frozen)],
                ..AdaLoraSchedule::default()
            };
            prop_assume!(schedule.check(steps).is_ok());
            let triplets = Triplets { all: target + pruned, target };
            let budgets: Vec<Budget> = (0..steps)
                .map(|step| schedule.budget(step, steps, triplets))
                .collect();
            for pair in budgets.windows(2) {
                prop_assert!(pair[0].left >= pair[1].left, "{:?}", budgets);
            }
            for (step, budget) in budgets.iter().enumerate() {
                prop_assert!((target..=target + pruned).contains(&budget.left));
                let begins = step <= schedule.initial_steps && step + 1 < steps;
                let whole = Budget { left: target + pruned, masks: false };
                prop_assert!(!begins || *budget == whole);
            }
            prop_assert_eq!(budgets.last(), Some(&Budget { left: target, masks: true }));
        }
    }
}
