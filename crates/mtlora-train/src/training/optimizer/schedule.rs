//! The learning rate of each step, as transformers' `get_scheduler` computes it.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The shape of the learning rate's course, with transformers' names (`lr_scheduler_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// After the warm-up, it falls in a straight line to zero at the end.
    #[default]
    Linear,
    /// After the warm-up, it falls along half a cosine wave to zero at the end.
    Cosine,
    /// It is the same from the first step to the last; there is no warm-up.
    Constant,
    /// After the warm-up, it stays the same.
    ConstantWithWarmup,
    /// After the warm-up, it stays the same, and falls along half a cosine wave to zero in the decay steps at the end
    /// (arXiv 2404.06395).
    WarmupStableDecay,
}

impl LrScheduler {
    /// All shapes.
    pub const ALL: [Self; 5] = [
        Self::Linear,
        Self::Cosine,
        Self::Constant,
        Self::ConstantWithWarmup,
        Self::WarmupStableDecay,
    ];

    /// The name in settings and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::Constant => "constant",
            Self::ConstantWithWarmup => "constant_with_warmup",
            Self::WarmupStableDecay => "warmup_stable_decay",
        }
    }

    /// Whether it is the default, which settings files leave out.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for LrScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for LrScheduler {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|one| one.as_str() == name);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("unknown learning-rate scheduler `{name}`: one of {names}")
        })
    }
}

/// The learning rate of each step of a training. During the warm-up steps, it rises in a straight line from zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrSchedule {
    scheduler: LrScheduler,
    peak: f64,
    warmup_steps: usize,
    decay_steps: usize,
    total_steps: usize,
}

impl LrSchedule {
    /// A schedule over `total_steps` steps with the highest rate `peak`. [`LrScheduler::WarmupStableDecay`] has no
    /// decay steps until [`with_decay_steps`](Self::with_decay_steps) sets their number.
    pub fn new(scheduler: LrScheduler, peak: f64, warmup_steps: usize, total_steps: usize) -> Self {
        Self {
            scheduler,
            peak,
            warmup_steps,
            decay_steps: 0,
            total_steps,
        }
    }

    /// The number of steps at the end in which [`LrScheduler::WarmupStableDecay`] falls to zero; at most those after
    /// the warm-up.
    #[must_use]
    pub fn with_decay_steps(mut self, decay_steps: usize) -> Self {
        self.decay_steps = decay_steps.min(self.after_warmup());
        self
    }

    /// The number of steps after the warm-up.
    fn after_warmup(&self) -> usize {
        self.total_steps.saturating_sub(self.warmup_steps)
    }

    /// The learning rate of a step, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        if self.scheduler == LrScheduler::Constant {
            return self.peak;
        }
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        match self.scheduler {
            LrScheduler::Constant | LrScheduler::ConstantWithWarmup => self.peak,
            LrScheduler::Linear => {
                let left = self.total_steps.saturating_sub(step);
                self.peak * left as f64 / self.after_warmup().max(1) as f64
            }
            LrScheduler::Cosine => self.half_wave(step, self.after_warmup()),
            LrScheduler::WarmupStableDecay => self.half_wave(step, self.decay_steps),
        }
    }

    /// The rate along half a cosine wave over the last `length` steps, before which it is the highest.
    fn half_wave(&self, step: usize, length: usize) -> f64 {
        let left = self.total_steps.saturating_sub(step);
        if left > length {
            return self.peak;
        }
        if left == 0 {
            return 0.0;
        }
        let progress = (length - left) as f64 / length.max(1) as f64;
        self.peak * 0.5 * (1.0 + (PI * progress).cos())
    }
}

/// The number of steps that a share of all steps has, rounded up as in transformers' `Trainer`.
pub(crate) fn steps_of_ratio(ratio: f64, total_steps: usize) -> usize {
    (ratio * total_steps as f64).ceil() as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rates(schedule: LrSchedule) -> Vec<f64> {
        (0..8).map(|step| schedule.rate(step)).collect()
    }

    #[test]
    fn linear_rises_and_falls_in_straight_lines() {
        let schedule = LrSchedule::new(LrScheduler::Linear, 1.0, 2, 6);
        assert_eq!(rates(schedule), [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn a_part_of_a_step_is_one() {
        assert_eq!(steps_of_ratio(0.25, 8), 2);
        assert_eq!(steps_of_ratio(0.25, 9), 3);
        let none = LrSchedule::new(LrScheduler::Linear, 1.0, steps_of_ratio(0.25, 0), 0);
        assert_eq!(none.rate(0), 0.0);
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        for scheduler in LrScheduler::ALL {
            assert_eq!(LrSchedule::new(scheduler, 0.3, 0, 10).rate(0), 0.3);
        }
    }

    /// transformers 5.24: `get_scheduler(name, optimizer, num_warmup_steps=4, num_training_steps=12)` with a rate of
    /// 3e-4, and `scheduler_specific_kwargs={"num_decay_steps": 3}` for `warmup_stable_decay`.
    #[test]
    fn the_rates_are_those_of_transformers() {
        let expected = [
            (
                LrScheduler::Cosine,
                [
                    0.000288581929876693,
                    0.00025606601717798207,
                    0.00020740251485476345,
                    0.00015,
                    9.259748514523653e-05,
                    4.3933982822017876e-05,
                    1.1418070123306989e-05,
                    0.0,
                ],
            ),
            (
                LrScheduler::Linear,
                [
                    0.0002625, 0.000225, 0.0001875, 0.00015, 0.0001125, 7.5e-05, 3.75e-05, 0.0,
                ],
            ),
            (LrScheduler::ConstantWithWarmup, [0.0003; 8]),
            (
                LrScheduler::WarmupStableDecay,
                [
                    0.0003, 0.0003, 0.0003, 0.0003, 0.0003, 0.000225, 7.5e-05, 0.0,
                ],
            ),
        ];
        let warm_up = [0.0, 7.5e-05, 0.00015, 0.000225, 0.0003];
        for (scheduler, after) in expected {
            let schedule = LrSchedule::new(scheduler, 3e-4, 4, 12).with_decay_steps(3);
            for (step, rate) in warm_up.into_iter().chain(after).enumerate() {
                let found = schedule.rate(step);
                assert!(
                    (found - rate).abs() < 1e-15,
                    "{scheduler} {step}: {found} {rate}"
                );
            }
        }
        let constant = LrSchedule::new(LrScheduler::Constant, 3e-4, 4, 12);
        assert!((0..12).all(|step| constant.rate(step) == 3e-4));
    }

    #[test]
    fn more_decay_steps_than_there_are_begin_after_the_warm_up() {
        let decay = LrSchedule::new(LrScheduler::WarmupStableDecay, 1.0, 2, 6).with_decay_steps(9);
        let cosine = LrSchedule::new(LrScheduler::Cosine, 1.0, 2, 6);
        assert_eq!(rates(decay), rates(cosine));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for one in LrScheduler::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
            assert_eq!(serde_json::to_string(&one).unwrap(), format!("\"{one}\""));
        }
        let error = "cosin".parse::<LrScheduler>().unwrap_err();
        assert!(
            error.contains("`cosin`") && error.contains("cosine"),
            "{error}"
        );
    }
}
