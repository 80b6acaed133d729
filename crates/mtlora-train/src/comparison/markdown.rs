//! A comparison as a Markdown text.

use std::fmt::Write;

use super::analysis::{Analysis, Reach, Summary};
use super::statistics::sign_flip_name;
use super::{ALL_TASKS, ArmScores, Comparison, Costs, DECIMALS, seed_count};

pub(super) fn write(comparison: &Comparison, analysis: &Analysis, costs: bool) -> String {
    let mut text = String::new();
    if let Some(about) = &comparison.about {
        let _ = writeln!(text, "# {}\n", cell(about));
    }
    scores(&mut text, comparison, analysis);
    differences(&mut text, comparison, analysis);
    spreads(&mut text, comparison, analysis);
    settings(&mut text, comparison);
    if costs {
        of_costs(&mut text, comparison);
    }
    published(&mut text, comparison);
    text
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn row(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// The head of a table, with the first `left` columns to the left and the others to the right.
fn head(text: &mut String, names: &[String], left: usize) {
    row(text, names);
    let marks = (0..names.len()).map(|at| if at < left { "---" } else { "---:" });
    let _ = writeln!(text, "|{}|", marks.collect::<Vec<_>>().join("|"));
}

fn scores(text: &mut String, comparison: &Comparison, analysis: &Analysis) {
    let mut names = vec!["arm".to_string()];
    for task in &comparison.tasks {
        let scale = match task.scale {
            1.0 => String::new(),
            scale => format!("{scale} x "),
        };
        let what = match task.metric.as_str() {
            "" => "no scores yet".to_string(),
            metric => format!("{scale}{metric}, {}", task.split),
        };
        names.push(cell(&format!("{} ({what})", task.name)));
    }
    if !analysis.all_tasks.is_empty() {
        names.push(ALL_TASKS.to_string());
    }
    head(text, &names, 1);
    for (arm, name) in comparison.arms.iter().enumerate() {
        let mut cells = vec![cell(name)];
        for (task, summaries) in comparison.tasks.iter().zip(&analysis.tasks) {
            let (Some(scores), Some(summary)) = (task.arms.get(arm), summaries.get(arm)) else {
                continue;
            };
            cells.push(score(
                summary,
                scores,
                comparison.seeds.len(),
                task.decimals(),
            ));
        }
        if let Some(summary) = analysis.all_tasks.get(arm) {
            cells.push(score(
                summary,
                &ArmScores::default(),
                comparison.seeds.len(),
                comparison.decimals(),
            ));
        }
        row(text, &cells);
    }
    let _ = writeln!(
        text,
        "\nMean ± standard deviation over {}, and the 95 % interval of the mean (Student's t): how much other seeds could change \
         it. It does not say how much other examples in the scored split could change it.\n",
        seed_count(comparison.seeds.len())
    );
    if !analysis.all_tasks.is_empty() {
        let _ = writeln!(
            text,
            "The score of {ALL_TASKS} is, for each seed, the mean of its scores on the tasks, each with the same weight ({}).\n",
            cell(&comparison.of_all_tasks())
        );
    }
}

/// `87.3 ± 0.4 [86.8, 87.8]`, with the number of runs if some are missing.
fn score(summary: &Summary, scores: &ArmScores, seeds: usize, decimals: usize) -> String {
    let Some(mean) = summary.mean else {
        let is_missing = scores.diverged + scores.nan == 0;
        let why = scores.without_score(0, seeds).filter(|_| !is_missing);
        return why.unwrap_or("-".to_string());
    };
    let number = |value| number(value, decimals);
    let mut text = number(mean);
    if let Some(deviation) = summary.standard_deviation {
        let _ = write!(text, " ± {}", number(deviation));
    }
    if let Some([low, high]) = summary.interval {
        let _ = write!(text, " [{}, {}]", number(low), number(high));
    }
    if let Some(why) = scores.without_score(summary.count, seeds) {
        let _ = write!(text, " ({why})");
    }
    text
}

/// A number with this many decimals.
pub(super) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    // A zero has no sign.
    let is_zero = text.bytes().all(|c| matches!(c, b'-' | b'0' | b'.'));
    match text.strip_prefix('-') {
        Some(zero) if is_zero => zero.to_string(),
        _ => text,
    }
}

fn signed(value: f64, decimals: usize) -> String {
    let text = number(value, decimals);
    let is_positive = !text.starts_with('-') && text.contains(|c: char| ('1'..='9').contains(&c));
    if is_positive {
        format!("+{text}")
    } else {
        text
    }
}

fn p_value(value: f64) -> String {
    match value {
        ..0.0001 => "< 0.0001".to_string(),
        _ => format!("{value:.4}"),
    }
}

/// A task, or the mean over all tasks, as a table shows it.
struct Shown<'a> {
    name: &'a str,
    decimals: usize,
    summaries: &'a [Summary],
}

/// The tasks with their summaries, the mean over all tasks last.
fn with_all<'a>(comparison: &'a Comparison, analysis: &'a Analysis) -> Vec<Shown<'a>> {
    let tasks = comparison.tasks.iter().zip(&analysis.tasks);
    let mut all: Vec<Shown<'_>> = tasks
        .map(|(task, summaries)| Shown {
            name: &task.name,
            decimals: task.decimals(),
            summaries,
        })
        .collect();
    if !analysis.all_tasks.is_empty() {
        all.push(Shown {
            name: ALL_TASKS,
            decimals: comparison.decimals(),
            summaries: &analysis.all_tasks,
        });
    }
    all
}

fn baseline(comparison: &Comparison) -> &str {
    comparison
        .arms
        .get(comparison.baseline)
        .map_or("", String::as_str)
}

fn differences(text: &mut String, comparison: &Comparison, analysis: &Analysis) {
    if comparison.arms.len() < 2 {
        return;
    }
    let base = baseline(comparison);
    let _ = writeln!(text, "## Differences from {}\n", cell(base));
    let names = [
        "task",
        "arm",
        "difference",
        "95 % interval",
        "p",
        "p, adjusted",
        "conclusion",
    ];
    head(text, &names.map(str::to_string), 2);
    for task in with_all(comparison, analysis) {
        let signed = |value| signed(value, task.decimals);
        for (arm, summary) in comparison.arms.iter().zip(task.summaries) {
            let Some(difference) = &summary.difference else {
                continue;
            };
            let interval = difference.interval.map_or("-".to_string(), |[low, high]| {
                format!("[{}, {}]", signed(low), signed(high))
            });
            row(
                text,
                &[
                    cell(task.name),
                    cell(arm),
                    signed(difference.mean),
                    interval,
                    p_value(difference.p_value),
                    p_value(difference.adjusted),
                    difference.conclusion.told("better", "worse").to_string(),
                ],
            );
        }
    }
    let _ = writeln!(
        text,
        "\nPaired by seed. The interval is Student's, of the mean difference, for one comparison at a time; p is that of {}, \
         adjusted for the number of comparisons (Holm){}.\n",
        sign_flip_name(analysis.reach.seeds),
        match analysis.reach_of_all_tasks {
            Some(_) => ": those on tasks among themselves, and those of all tasks among themselves",
            None => "",
        }
    );
    for (reach, what) in [
        (Some(analysis.reach), "on a task"),
        (analysis.reach_of_all_tasks, "in the mean over all tasks"),
    ] {
        if let Some(reach) = reach.filter(|reach| !reach.is_enough()) {
            let _ = writeln!(text, "{}\n", too_few(reach, what));
        }
    }
}

/// Why nothing can be concluded from differences, and what is needed.
pub(crate) fn too_few(reach: Reach, what: &str) -> String {
    let adjusted = match reach.comparisons {
        1 => String::new(),
        count => format!(
            ", and after the adjustment for {count} comparisons not below {}",
            p_value(reach.smallest_adjusted)
        ),
    };
    format!(
        "Too few seeds to show a difference {what}: with scores of {}, p cannot be below {}{adjusted}. At least {} seeds are needed.",
        seed_count(reach.seeds),
        p_value(reach.smallest),
        reach.seeds_needed
    )
}

fn spreads(text: &mut String, comparison: &Comparison, analysis: &Analysis) {
    let all = with_all(comparison, analysis);
    if all
        .iter()
        .flat_map(|task| task.summaries)
        .all(|one| one.spread.is_none())
    {
        return;
    }
    let base = baseline(comparison);
    let _ = writeln!(text, "## Spread over seeds, compared with {}\n", cell(base));
    let names = [
        "task",
        "arm",
        "standard deviation, arm / baseline",
        "p",
        "p, adjusted",
        "conclusion",
    ];
    head(text, &names.map(str::to_string), 2);
    for task in all {
        for (arm, summary) in comparison.arms.iter().zip(task.summaries) {
            let Some(spread) = &summary.spread else {
                continue;
            };
            row(
                text,
                &[
                    cell(task.name),
                    cell(arm),
                    spread
                        .ratio
                        .map_or("-".to_string(), |ratio| number(ratio, DECIMALS)),
                    p_value(spread.p_value),
                    p_value(spread.adjusted),
                    spread.conclusion.told("smaller", "larger").to_string(),
                ],
            );
        }
    }
    let _ = writeln!(
        text,
        "\np is that of a permutation test of the absolute deviations from the medians (Brown and Forsythe's; where the number of seeds is \
         odd, one of the scores is the median, and its deviation of zero is left out), adjusted for the number of comparisons (Holm).\n"
    );
}

fn settings(text: &mut String, comparison: &Comparison) {
    let tasks = comparison.tasks.iter();
    let chosen: Vec<[String; 4]> = tasks
        .flat_map(|task| {
            let arms = comparison.arms.iter().zip(&task.arms);
            arms.filter_map(|(name, arm)| {
                let chosen = arm.chosen.as_ref()?;
                let tried: Vec<String> = arm
                    .tried
                    .iter()
                    .map(|one| {
                        let decimals = task.decimals_of_tried(one);
                        let mean = one.mean().filter(|mean| !mean.is_nan());
                        let mean = mean.map_or("-".to_string(), |mean| number(mean, decimals));
                        let metric = match one.metric == task.metric || one.metric.is_empty() {
                            true => String::new(),
                            false => format!(" ({})", cell(&one.metric)),
                        };
                        format!("{}: {mean}{metric}", cell(&one.settings))
                    })
                    .collect();
                Some([cell(&task.name), cell(name), cell(chosen), tried.join(", ")])
            })
        })
        .collect();
    if chosen.is_empty() {
        return;
    }
    text.push_str("## Settings that were chosen\n\n");
    let names = ["task", "arm", "settings", "tried, with the mean score"];
    head(text, &names.map(str::to_string), 4);
    for line in chosen {
        row(text, &line);
    }
    text.push_str(
        "\nThe settings with the best mean over the tuning seeds, on the examples that choose them. Where the first or the last of \
         several values was chosen, a better one may lie outside of the grid.\n\n",
    );
}

fn of_costs(text: &mut String, comparison: &Comparison) {
    text.push_str("## What a run needs\n\n");
    let names = [
        "task",
        "arm",
        "trained parameters",
        "share",
        "seconds",
        "MiB",
    ];
    head(text, &names.map(str::to_string), 2);
    for task in &comparison.tasks {
        for (name, arm) in comparison.arms.iter().zip(&task.arms) {
            let Some(costs) = &arm.costs else {
                continue;
            };
            row(
                text,
                &[
                    cell(&task.name),
                    cell(name),
                    costs.trainable_parameters.to_string(),
                    format!("{:.2} %", share(costs)),
                    costs
                        .train_seconds
                        .map_or("-".to_string(), |seconds| format!("{seconds:.1}")),
                    costs
                        .peak_rss_mb
                        .map_or("-".to_string(), |mib| format!("{mib:.0}")),
                ],
            );
        }
    }
    text.push_str(
        "\nThe mean time of a run's steps, and the largest peak memory of a run. They depend on the machine.\n\n",
    );
}

/// The share of trained parameters in percent.
pub(crate) fn share(costs: &Costs) -> f64 {
    100.0 * costs.trainable_parameters as f64 / (costs.total_parameters as f64).max(1.0)
}

fn published(text: &mut String, comparison: &Comparison) {
    if comparison.published.is_empty() {
        return;
    }
    text.push_str("## Published results\n\n");
    let tasks = || comparison.tasks.iter().map(|task| task.name.as_str());
    let mut names = vec!["method".to_string()];
    names.extend(tasks().map(cell));
    names.push("source".to_string());
    head(text, &names, 1);
    for one in &comparison.published {
        let mut cells = vec![cell(&one.name)];
        cells.extend(tasks().map(|task| cell(&one.score(task).unwrap_or("-".to_string()))));
        cells.push(cell(&one.source));
        row(text, &cells);
    }
    text.push_str("\nAs they were published, with other seeds and other tuning.\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::analysis::tests::example;
    use crate::comparison::{Published, TriedSettings};

    #[test]
    fn a_table_says_what_can_be_concluded() {
        let mut comparison = example();
        let tried = |settings: &str, metric: &str, scores: &[Option<f64>]| TriedSettings {
            settings: settings.to_string(),
            metric: metric.to_string(),
            scores: scores.to_vec(),
        };
        comparison.tasks[0].arms[1].tried = vec![
            tried("lr=1e-3", "accuracy", &[Some(80.0), Some(81.0)]),
            tried("lr=1e-2", "accuracy", &[Some(99.0), None]),
            tried("lr=1e-1", "loss", &[Some(2.51341)]),
        ];
        comparison.published.push(Published {
            name: "LoRA | others".to_string(),
            source: "a paper".to_string(),
            scores: [("one".to_string(), toml::Value::from("81.0 ± .2"))]
                .into_iter()
                .collect(),
        });
        let text = comparison.to_markdown(true);
        for line in [
            "# an example",
            "| arm | one (100 x accuracy, dev) | two (100 x accuracy, dev) | all tasks |",
            "## Differences from base",
            "## Spread over seeds, compared with base",
            "| one | up | lr=1e-3 | lr=1e-3: 80.50, lr=1e-2: -, lr=1e-1: 2.5134 (loss) |",
            "| one | base | 1200 | 25.00 % | 12.5 | 100 |",
            "| LoRA \\| others | 81.0 ± .2 | - | a paper |",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        let line = |start: &str| text.lines().find(|line| line.starts_with(start));
        let is = |start: &str, end: &str| line(start).is_some_and(|line| line.ends_with(end));
        assert!(is("| one | up | +", " | better |"), "{text}");
        assert!(
            is("| two | like_this | ", " | cannot be told apart |"),
            "{text}"
        );
        assert!(line("| like_this |").is_some_and(|line| line.contains("(1 of 8 diverged)")));
        // Every line of a table has as many cells as its head.
        for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
            let cells = |line: &str| line.replace("\\|", "").matches('|').count();
            let mut counts = table.lines().map(cells);
            let first = counts.next();
            assert!(counts.all(|count| Some(count) == first), "{table}");
        }
        assert!(!comparison.to_markdown(false).contains("What a run needs"));
        let mut one = example();
        one.seeds.truncate(1);
        assert!(one.to_markdown(false).contains("over 1 seed, and the"));
        assert_eq!(number(-0.001, 2), "0.00");
        assert_eq!(
            [0.5, -0.5, 0.0, 0.004].map(|value| signed(value, 2)),
            ["+0.50", "-0.50", "0.00", "0.00"]
        );
    }

    #[test]
    fn small_scores_have_more_decimals() {
        let mut comparison = example();
        for task in &mut comparison.tasks {
            task.scale = 1.0;
            task.metric = "loss".to_string();
            for score in task.arms.iter_mut().flat_map(|arm| &mut arm.scores) {
                *score = score.map(|score| score / 100.0);
            }
        }
        let text = comparison.to_markdown(false);
        let line = text
            .lines()
            .find(|line| line.starts_with("| base |"))
            .unwrap_or_default();
        let cell = line.split('|').nth(2).unwrap_or_default().trim();
        let (mean, _) = cell.split_once(' ').unwrap_or_default();
        assert_eq!(mean.len(), "0.8000".len(), "{text}");
    }
}
