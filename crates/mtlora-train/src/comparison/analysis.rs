//! The statistics of a comparison.

use serde::Serialize;

use super::statistics::{
    Interval, bootstrap_interval, holm, interval_of_mean, mean, mean_deviation, sign_flip_test,
    smallest_p_value, smallest_spread_p_value, spread_test, standard_deviation,
};
use super::{ArmScores, Comparison, TaskScores};
use crate::metrics::labels::MetricName;

/// The scale of shares and correlations.
const PERCENT: f64 = 100.0;

/// Two arms are told apart if the adjusted p-value is at most this.
pub(super) const LEVEL: f64 = 0.05;

/// The statistics of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Analysis {
    /// For each task and each arm.
    pub tasks: Vec<Vec<Summary>>,
    /// For each arm, of the mean over all tasks; empty if there is one task, or if their scores have no common unit.
    pub all_tasks: Vec<Summary>,
    /// What the differences on single tasks can show.
    pub reach: Reach,
    /// What the differences of the mean over all tasks can show, whose p-values are adjusted among themselves.
    pub reach_of_all_tasks: Option<Reach>,
}

/// What a number of comparisons can show with a number of seeds, however large the differences are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reach {
    /// The number of comparisons that p-values are adjusted for.
    pub comparisons: usize,
    /// The largest number of seeds that both arms of a comparison have scores of.
    pub seeds: usize,
    /// The smallest p-value that a difference can have.
    pub smallest: f64,
    /// The smallest one after the adjustment.
    pub smallest_adjusted: f64,
    /// The number of seeds from which a difference can be told apart.
    pub seeds_needed: usize,
}

impl Reach {
    /// The reach of a number of comparisons between arms that have this number of seeds each.
    pub fn new(comparisons: usize, seeds: usize) -> Self {
        let adjusted = |seeds| (smallest_p_value(seeds) * comparisons.max(1) as f64).min(1.0);
        Self {
            comparisons,
            seeds,
            smallest: smallest_p_value(seeds),
            smallest_adjusted: adjusted(seeds),
            seeds_needed: (1..=16)
                .find(|seeds| adjusted(*seeds) <= LEVEL)
                .unwrap_or(17),
        }
    }

    /// Whether a difference can be told apart at all.
    pub fn is_enough(&self) -> bool {
        self.smallest_adjusted <= LEVEL
    }
}

/// The statistics of an arm on a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The number of scores.
    pub count: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// Their standard deviation.
    pub standard_deviation: Option<f64>,
    /// The interval of the mean by Student's distribution, at 95 %.
    pub interval: Option<[f64; 2]>,
    /// How the scores differ from the baseline's.
    pub difference: Option<Difference>,
    /// How their spread differs from the baseline's.
    pub spread: Option<Spread>,
}

/// What can be concluded from a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// The arm is better, or its spread is smaller.
    Better,
    /// The arm is worse, or its spread is larger.
    Worse,
    /// The two cannot be told apart.
    CannotBeToldApart,
    /// There are too few seeds for any conclusion: no difference, however large, could have a small enough p-value.
    TooFewSeeds,
}

impl Conclusion {
    /// That of one of several comparisons; `is_enough` says whether any of them could have a small enough p-value.
    fn of(adjusted: f64, is_better: bool, is_enough: bool) -> Self {
        match (adjusted <= LEVEL, is_better) {
            (true, true) => Self::Better,
            (true, false) => Self::Worse,
            (false, _) if !is_enough => Self::TooFewSeeds,
            (false, _) => Self::CannotBeToldApart,
        }
    }

    /// The conclusion in words; `better` and `worse` are the words for a better and a worse arm.
    pub(crate) fn told(self, better: &'static str, worse: &'static str) -> &'static str {
        match self {
            Self::Better => better,
            Self::Worse => worse,
            Self::CannotBeToldApart => "cannot be told apart",
            Self::TooFewSeeds => "too few seeds",
        }
    }
}

/// The differences of an arm's scores from the baseline's, seed by seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The number of seeds that both have a score of.
    pub pairs: usize,
    /// The mean difference; positive if the arm's scores are higher.
    pub mean: f64,
    /// The interval of the mean difference by Student's distribution, at 95 %.
    pub interval: Option<[f64; 2]>,
    /// That of the percentile bootstrap, which is too narrow for few seeds.
    pub bootstrap: Option<[f64; 2]>,
    /// The p-value of the sign-flip test.
    pub p_value: f64,
    /// The smallest p-value that this number of pairs can have.
    pub smallest: f64,
    /// The p-value after Holm's adjustment for all differences.
    pub adjusted: f64,
    /// Whether the arm is better or worse.
    pub conclusion: Conclusion,
}

/// The spread of an arm's scores over seeds, compared with the baseline's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The arm's standard deviation divided by the baseline's; `None` if the baseline's is zero.
    pub ratio: Option<f64>,
    /// Whether the arm's absolute deviations from the median are smaller on average, which is what is tested. One outlier
    /// can make the standard deviation say otherwise.
    pub is_smaller: bool,
    /// The p-value of the permutation test of the absolute deviations from the medians.
    pub p_value: f64,
    /// The smallest p-value that these numbers of scores can have.
    pub smallest: f64,
    /// The p-value after Holm's adjustment for all spreads.
    pub adjusted: f64,
    /// Whether the spread is smaller (better) or larger (worse).
    pub conclusion: Conclusion,
}

pub(super) fn analyse(comparison: &Comparison) -> Analysis {
    let baseline = comparison.baseline;
    let mut tasks: Vec<Vec<Summary>> = comparison
        .tasks
        .iter()
        .map(|task| summaries(task, baseline))
        .collect();
    let higher = |task: usize| {
        comparison
            .tasks
            .get(task)
            .is_none_or(|task| task.higher_is_better)
    };
    adjust(
        tasks
            .iter_mut()
            .enumerate()
            .map(|(index, task)| (higher(index), task)),
    );
    let mut all_tasks = match of_all_tasks(comparison) {
        Some(all) => summaries(&all, baseline),
        None => Vec::new(),
    };
    adjust([(higher(0), &mut all_tasks)]);
    let reach = |summaries: &mut dyn Iterator<Item = &Summary>| {
        let pairs: Vec<usize> = summaries
            .filter_map(|one| one.difference.map(|difference| difference.pairs))
            .collect();
        Reach::new(pairs.len(), pairs.into_iter().max().unwrap_or(0))
    };
    let (of_tasks, of_all) = (
        reach(&mut tasks.iter().flatten()),
        reach(&mut all_tasks.iter()),
    );
    Analysis {
        tasks,
        reach: of_tasks,
        reach_of_all_tasks: (!all_tasks.is_empty()).then_some(of_all),
        all_tasks,
    }
}

/// The scores of the mean over all tasks, which needs every seed's score on each task. As in GLUE's average, metrics may differ
/// from task to task if all are shares and correlations in percent; others have no common unit, and errors have none in any case: one
/// task's loss can be a cross-entropy and another's a squared error.
fn of_all_tasks(comparison: &Comparison) -> Option<TaskScores> {
    let [first, rest @ ..] = comparison.tasks.as_slice() else {
        return None;
    };
    let fits = |task: &TaskScores| {
        let unit = |task: &TaskScores| (task.scale, task.higher_is_better);
        let is_error = |metric: &str| metric.parse().is_ok_and(MetricName::is_error);
        unit(task) == unit(first)
            && (task.scale == PERCENT || task.metric == first.metric && !is_error(&task.metric))
    };
    if rest.is_empty() || !rest.iter().all(fits) {
        return None;
    }
    let of_seed = |arm: usize, seed: usize| -> Option<f64> {
        let scores = comparison.tasks.iter().map(|task| {
            let arm = task.arms.get(arm)?;
            *arm.scores.get(seed)?
        });
        let scores: Vec<f64> = scores.collect::<Option<_>>()?;
        Some(mean(&scores))
    };
    let arms = (0..comparison.arms.len()).map(|arm| ArmScores {
        scores: (0..comparison.seeds.len())
            .map(|seed| of_seed(arm, seed))
            .collect(),
        ..ArmScores::default()
    });
    Some(TaskScores {
        arms: arms.collect(),
        ..first.clone()
    })
}

/// The statistics of all arms on a task, with p-values that are not adjusted yet.
fn summaries(task: &TaskScores, baseline: usize) -> Vec<Summary> {
    let arms = task.arms.iter().enumerate();
    arms.map(|(index, arm)| {
        let reference = task.arms.get(baseline).filter(|_| index != baseline);
        summary(arm, reference)
    })
    .collect()
}

fn summary(arm: &ArmScores, baseline: Option<&ArmScores>) -> Summary {
    let scores: Vec<f64> = arm.scores.iter().flatten().copied().collect();
    let deviation = standard_deviation(&scores);
    let ends = |interval: Interval| [interval.low, interval.high];
    let mut summary = Summary {
        count: scores.len(),
        mean: (!scores.is_empty()).then(|| mean(&scores)),
        standard_deviation: deviation,
        interval: interval_of_mean(&scores).map(ends),
        difference: None,
        spread: None,
    };
    let Some(baseline) = baseline else {
        return summary;
    };
    let pairs = arm.scores.iter().zip(&baseline.scores);
    let differences: Vec<f64> = pairs
        .filter_map(|(one, other)| Some((*one)? - (*other)?))
        .collect();
    summary.difference = sign_flip_test(&differences).map(|p_value| Difference {
        pairs: differences.len(),
        mean: mean(&differences),
        interval: interval_of_mean(&differences).map(ends),
        bootstrap: bootstrap_interval(&differences).map(ends),
        p_value,
        smallest: smallest_p_value(differences.len()),
        adjusted: p_value,
        conclusion: Conclusion::CannotBeToldApart,
    });
    let others: Vec<f64> = baseline.scores.iter().flatten().copied().collect();
    summary.spread = spread_test(&scores, &others).map(|p_value| Spread {
        ratio: ratio(deviation, standard_deviation(&others)),
        is_smaller: mean_deviation(&scores) < mean_deviation(&others),
        p_value,
        smallest: smallest_spread_p_value(scores.len(), others.len()),
        adjusted: p_value,
        conclusion: Conclusion::CannotBeToldApart,
    });
    summary
}

fn ratio(deviation: Option<f64>, of_baseline: Option<f64>) -> Option<f64> {
    let of_baseline = of_baseline.filter(|one| *one > 0.0)?;
    Some(deviation? / of_baseline)
}

/// Adjusts the p-values of all differences together, and those of all spreads, and draws the conclusions. Each task says
/// whether higher scores are better.
fn adjust<'a>(tasks: impl IntoIterator<Item = (bool, &'a mut Vec<Summary>)>) {
    let mut all: Vec<(bool, &mut Summary)> = Vec::new();
    for (higher, task) in tasks {
        all.extend(task.iter_mut().map(|one| (higher, one)));
    }
    let mut differences: Vec<(bool, &mut Difference)> = Vec::new();
    let mut spreads: Vec<&mut Spread> = Vec::new();
    for (higher, summary) in &mut all {
        let Summary {
            difference, spread, ..
        } = &mut **summary;
        differences.extend(difference.as_mut().map(|one| (*higher, one)));
        spreads.extend(spread.as_mut());
    }
    let p_values: Vec<f64> = differences.iter().map(|(_, one)| one.p_value).collect();
    // Holm's first step multiplies the smallest p-value by the number of comparisons; if that fails, all fail.
    let is_enough = |smallest: f64, count: usize| smallest * count as f64 <= LEVEL;
    let count = differences.len();
    let enough = differences
        .iter()
        .any(|(_, one)| is_enough(one.smallest, count));
    for ((higher, one), adjusted) in differences.into_iter().zip(holm(&p_values)) {
        one.adjusted = adjusted;
        one.conclusion = Conclusion::of(adjusted, (one.mean > 0.0) == higher, enough);
    }
    let p_values: Vec<f64> = spreads.iter().map(|one| one.p_value).collect();
    let count = spreads.len();
    let enough = spreads.iter().any(|one| is_enough(one.smallest, count));
    for (one, adjusted) in spreads.into_iter().zip(holm(&p_values)) {
        one.adjusted = adjusted;
        one.conclusion = Conclusion::of(adjusted, one.is_smaller, enough);
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::comparison::Costs;

    /// Two tasks and three arms with eight seeds. The arm `up` is better than `base` by about one on each task, and `like` is
    /// not; the last run of `like` on the second task diverged.
    pub(in crate::comparison) fn example() -> Comparison {
        let noise = [0.3, -0.2, 0.5, 0.1, -0.4, 0.2, -0.1, 0.0];
        let arm = |shift: f64, flip: f64| ArmScores {
            scores: noise
                .iter()
                .enumerate()
                .map(|(at, one)| Some(80.0 + one + shift + flip * noise[(at + 3) % 8]))
                .collect(),
            chosen: Some("lr=1e-3".to_string()),
            costs: Some(Costs {
                trainable_parameters: 1200,
                total_parameters: 4800,
                train_seconds: Some(12.5),
                peak_rss_mb: Some(100.0),
            }),
            ..ArmScores::default()
        };
        let task = |name: &str| TaskScores {
            name: name.to_string(),
            metric: "accuracy".to_string(),
            split: "dev".to_string(),
            higher_is_better: true,
            scale: 100.0,
            arms: vec![arm(0.0, 0.0), arm(1.0, 0.1), arm(0.0, 0.5)],
        };
        let mut tasks = vec![task("one"), task("two")];
        let last = tasks[1].arms[2].scores.last_mut().unwrap();
        *last = None;
        tasks[1].arms[2].diverged = 1;
        Comparison {
            about: Some("an example".to_string()),
            seeds: (1..=8).collect(),
            arms: ["base", "up", "like_this"].map(str::to_string).to_vec(),
            baseline: 0,
            tasks,
            published: Vec::new(),
        }
    }

    #[test]
    fn what_is_better_is_told_apart_and_what_is_not_is_not() {
        let comparison = example();
        let analysis = comparison.analysis();
        for task in &analysis.tasks {
            assert!(task[0].difference.is_none() && task[0].spread.is_none());
            let up = task[1].difference.unwrap();
            assert_eq!(up.conclusion, Conclusion::Better);
            // All eight differences have the same sign, and there are four comparisons.
            assert_eq!((up.pairs, up.p_value), (8, 2.0 / 256.0));
            assert!((0.02..=4.0 * 2.0 / 256.0).contains(&up.adjusted));
            assert_eq!(
                task[2].difference.unwrap().conclusion,
                Conclusion::CannotBeToldApart
            );
        }
        // A run that diverged has no pair.
        assert_eq!(analysis.tasks[1][2].difference.unwrap().pairs, 7);
        assert_eq!(analysis.tasks[1][2].count, 7);
        assert_eq!(
            analysis.all_tasks[1].difference.unwrap().conclusion,
            Conclusion::Better
        );
        assert_eq!(
            (
                analysis.reach.smallest_adjusted,
                analysis.reach.seeds_needed
            ),
            (4.0 * 2.0 / 256.0, 8)
        );
    }

    #[test]
    fn only_scores_of_one_unit_have_a_mean_over_tasks() {
        let with = |metrics: [&str; 2], scale: f64| {
            let mut comparison = example();
            for (task, metric) in comparison.tasks.iter_mut().zip(metrics) {
                task.metric = metric.to_string();
                task.scale = scale;
            }
            (
                comparison.analysis().all_tasks.len(),
                comparison.of_all_tasks(),
            )
        };
        assert_eq!(
            with(["accuracy", "matthews"], 100.0),
            (3, "one: accuracy, two: matthews".to_string())
        );
        assert_eq!(with(["bleu", "bleu"], 1.0), (3, "bleu".to_string()));
        assert_eq!(with(["bleu", "nist"], 1.0).0, 0);
    }

    #[test]
    fn a_metric_of_which_less_is_better_turns_the_conclusion() {
        let mut comparison = example();
        for task in &mut comparison.tasks {
            task.higher_is_better = false;
        }
        let analysis = comparison.analysis();
        let up = analysis.tasks[0][1].difference.unwrap();
        assert!(up.mean > 0.0);
        assert_eq!(up.conclusion, Conclusion::Worse);
    }

    #[test]
    fn five_seeds_are_too_few_for_a_conclusion_and_this_is_said() {
        let mut comparison = example();
        comparison.seeds.truncate(5);
        for task in &mut comparison.tasks {
            for arm in &mut task.arms {
                arm.scores.truncate(5);
            }
        }
        let analysis = comparison.analysis();
        let up = analysis.tasks[0][1].difference.unwrap();
        assert_eq!(
            (up.p_value, up.conclusion),
            (0.0625, Conclusion::TooFewSeeds)
        );
        // Student's interval of differences is that of their mean, and wider than the bootstrap's.
        let wide = up.interval.unwrap();
        let narrow = up.bootstrap.unwrap();
        assert!(wide[0] < narrow[0] && narrow[1] < wide[1], "{up:?}");
        // Two of the 70 ways to share eight deviations are as extreme as can be.
        let spread = analysis.tasks[0][1].spread.unwrap();
        assert_eq!(
            (spread.smallest, spread.conclusion),
            (2.0 / 70.0, Conclusion::TooFewSeeds)
        );
        let of_all = analysis.reach_of_all_tasks.unwrap();
        assert_eq!((of_all.comparisons, of_all.smallest_adjusted), (2, 0.125));
        assert!(!of_all.is_enough() && Reach::new(2, of_all.seeds_needed).is_enough());
        assert_eq!(
            (
                analysis.reach.smallest_adjusted,
                analysis.reach.seeds_needed
            ),
            (0.25, 8)
        );
    }

    /// The test compares deviations from the median, and one outlier makes the standard deviation larger.
    #[test]
    fn the_direction_of_a_spread_is_that_of_what_is_tested() {
        let wide: Vec<f64> = (0..24)
            .map(|at| if at % 2 == 0 { 1.5 } else { -1.5 })
            .collect();
        let mut narrow: Vec<f64> = wide.iter().map(|one| one / 15.0).collect();
        narrow[0] = 10.0;
        let arm = |scores: Vec<f64>| ArmScores {
            scores: scores.into_iter().map(Some).collect(),
            ..example().tasks[0].arms[0].clone()
        };
        let mut comparison = example();
        comparison.seeds = (0..24).collect();
        comparison.tasks.truncate(1);
        comparison.tasks[0].arms.truncate(2);
        comparison.arms.truncate(2);
        comparison.tasks[0].arms[comparison.baseline] = arm(wide);
        comparison.tasks[0].arms[1 - comparison.baseline] = arm(narrow);
        let analysis = analyse(&comparison);
        let spread = analysis.tasks[0][1 - comparison.baseline].spread.unwrap();
        assert!(
            spread.ratio.unwrap() > 1.0 && spread.adjusted < LEVEL,
            "{spread:?}"
        );
        assert_eq!(spread.conclusion, Conclusion::Better);
    }
}
