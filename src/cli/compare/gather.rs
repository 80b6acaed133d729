//! Gathers the scores of a sweep's runs.

use mtlora::train::comparison::{ArmScores, Comparison, Costs, TaskScores, TriedSettings};
use mtlora::train::{MetricName, MetricValues, RunResults};

use crate::cli::sweep::plan::{Phase, Plan, higher_is_better};
use crate::cli::sweep::store::{Outcome, Outcomes};

/// The scores of the final runs that are complete.
///
/// # Errors
/// If a run does not have the metric that was asked for.
pub(crate) fn comparison(
    plan: &Plan,
    outcomes: &Outcomes,
    metric: Option<&str>,
) -> Result<Comparison, String> {
    let file = &plan.file;
    let mut tasks = Vec::new();
    for (task, of_task) in file.tasks.iter().enumerate() {
        let wanted = metric.or(of_task.metric.as_deref());
        let metric = match wanted {
            Some(metric) => metric.to_string(),
            None => first_metric(plan, outcomes, task).unwrap_or_default(),
        };
        let is_e2e = of_task.is_e2e();
        let scale = scale(&metric, is_e2e);
        let mut arms = Vec::new();
        for arm in 0..file.arms.len() {
            let mut of_arm = scores(plan, outcomes, (task, arm), &metric, scale)?;
            of_arm.tried = tried(plan, outcomes, (task, arm), is_e2e);
            arms.push(of_arm);
        }
        tasks.push(TaskScores {
            name: of_task.name.clone(),
            higher_is_better: higher_is_better(&metric),
            metric,
            split: of_task.score_split.clone(),
            scale,
            arms,
        });
    }
    Ok(Comparison {
        about: file.about.clone(),
        seeds: file.seeds.clone(),
        arms: file.arms.iter().map(|arm| arm.name.clone()).collect(),
        baseline: file.baseline,
        tasks,
        published: file.published.clone(),
    })
}

/// The metrics of a run on the split that was scored.
pub(super) fn scored(results: &RunResults) -> &MetricValues {
    results
        .scored
        .as_ref()
        .map_or(&results.metrics, |scored| &scored.metrics)
}

/// The main metric of a task, which is the first one that its runs have.
fn first_metric(plan: &Plan, outcomes: &Outcomes, task: usize) -> Option<String> {
    let cells = plan.cells.iter().enumerate();
    let mut finals = cells.filter(|(_, cell)| cell.task == task && cell.phase == Phase::Final);
    finals.find_map(|(index, _)| match outcomes.get(index)? {
        Outcome::Done(results) => {
            let (name, _) = scored(results).iter().next()?;
            Some(name.to_string())
        }
        Outcome::Diverged { .. } => None,
    })
}

/// Shares and correlations are shown in percent, as in publications; so are the shares among the scores of E2E's script.
fn scale(metric: &str, is_e2e: bool) -> f64 {
    let is_share = match metric.parse::<MetricName>() {
        Ok(metric) => !metric.is_error(),
        Err(_) => is_e2e && ["bleu", "meteor", "meteor_exact_stem", "rouge_l"].contains(&metric),
    };
    if is_share { 100.0 } else { 1.0 }
}

fn scores(
    plan: &Plan,
    outcomes: &Outcomes,
    (task, arm): (usize, usize),
    metric: &str,
    scale: f64,
) -> Result<ArmScores, String> {
    let mut found = ArmScores::default();
    let mut results: Vec<&RunResults> = Vec::new();
    let cells = plan.cells_of(task, arm);
    for (index, cell) in cells.filter(|(_, cell)| cell.phase == Phase::Final) {
        found.scores.push(match outcomes.get(index) {
            None => None,
            Some(Outcome::Diverged { .. }) => {
                found.diverged += 1;
                None
            }
            Some(Outcome::Done(of_run)) => {
                results.push(of_run);
                let metrics = scored(of_run);
                let value = metrics.iter().find(|(name, _)| *name == metric);
                let Some((_, value)) = value else {
                    let names: Vec<&str> = metrics.iter().map(|(name, _)| name).collect();
                    return Err(format!(
                        "{}: the run has no metric {metric}: one of {}",
                        cell.name,
                        names.join(", ")
                    ));
                };
                found.nan += usize::from(value.is_nan());
                (!value.is_nan()).then_some(value * scale)
            }
        });
    }
    found.costs = costs(&results);
    found.chosen = plan
        .chosen(task, arm, outcomes)
        .filter(|_| plan.file.points(task, arm).len() > 1)
        .and_then(|point| plan.file.points(task, arm).get(point))
        .map(|point| point.name.clone());
    Ok(found)
}

/// The points of an arm's grid on a task, with the scores by which one of them is chosen.
fn tried(
    plan: &Plan,
    outcomes: &Outcomes,
    (task, arm): (usize, usize),
    is_e2e: bool,
) -> Vec<TriedSettings> {
    let points = plan.file.points(task, arm);
    if points.len() < 2 {
        return Vec::new();
    }
    let mut all: Vec<TriedSettings> = points
        .iter()
        .map(|point| TriedSettings {
            settings: point.name.clone(),
            ..TriedSettings::default()
        })
        .collect();
    for (index, cell) in plan.cells_of(task, arm) {
        let Phase::Tune(at) = cell.phase else {
            continue;
        };
        let tuned = match outcomes.get(index) {
            Some(Outcome::Done(results)) => plan.tuning_score(cell, results),
            Some(Outcome::Diverged { .. }) | None => None,
        };
        if let Some(point) = all.get_mut(at) {
            let score = tuned.map(|(name, value)| value * scale(name, is_e2e));
            point.scores.push(score);
            if let Some((name, _)) = tuned {
                point.metric = name.to_string();
            }
        }
    }
    all
}

fn costs(results: &[&RunResults]) -> Option<Costs> {
    let first = results.first()?;
    let seconds: f64 = results.iter().map(|one| one.train_seconds).sum();
    let peaks = results.iter().filter_map(|one| one.peak_rss_mb);
    Some(Costs {
        trainable_parameters: first.trainable_parameters,
        total_parameters: first.total_parameters,
        train_seconds: Some(seconds / results.len() as f64),
        peak_rss_mb: peaks.reduce(f64::max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shown_in_percent() {
        for (metric, is_e2e, wanted) in [
            ("accuracy", false, 100.0),
            ("matthews", false, 100.0),
            ("loss", false, 1.0),
            ("bleu", false, 1.0),
            ("bleu", true, 100.0),
            ("nist", true, 1.0),
        ] {
            assert_eq!(scale(metric, is_e2e), wanted, "{metric}");
        }
    }
}
