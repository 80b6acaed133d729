//! The page about a comparison of methods: every seed's score as a point, with what a run needs beside it.

use std::fmt::Write;

use super::chart::{label, span, ticks};
use super::page::{STYLE, count, duration, escape};
use crate::comparison::markdown::too_few;
use crate::comparison::statistics::sign_flip_name;
use crate::comparison::{Analysis, ArmScores, Comparison, Summary, TaskScores};

/// The size of the drawing in a row of a table.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 34.0;
/// The margin to the left and to the right of the points.
const MARGIN: f64 = 12.0;

/// The page about a comparison. It is a single file that loads nothing else and runs no script.
pub fn comparison_page(comparison: &Comparison) -> String {
    let analysis = comparison.analysis();
    let title = escape(comparison.about.as_deref().unwrap_or("a comparison"));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{title} · mtlora</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n</header>\n<main>\n"
    );
    let baseline = comparison
        .arms
        .get(comparison.baseline)
        .map_or("", String::as_str);
    let _ = writeln!(
        page,
        "<p class=\"note\">A point is the score of a run with one seed, the bar the 95 % interval of the mean (Student's t), and its \
         tick the mean. Differences from {} are paired by seed, with their 95 % interval (Student's t); p is that of {} and, for the spread, of a \
         permutation test, each adjusted for the number of comparisons (Holm).</p>",
        escape(baseline),
        sign_flip_name(analysis.reach.seeds)
    );
    for (reach, what) in [
        (Some(analysis.reach), "on a task"),
        (analysis.reach_of_all_tasks, "in the mean over all tasks"),
    ] {
        let reach = reach.filter(|reach| !reach.is_enough() && comparison.arms.len() > 1);
        if let Some(reach) = reach {
            let text = too_few(reach, what);
            let _ = writeln!(page, "<p class=\"note\">{}</p>", escape(&text));
        }
    }
    for (task, summaries) in comparison.tasks.iter().zip(&analysis.tasks) {
        section(&mut page, comparison, task, summaries);
    }
    over_all(&mut page, comparison, &analysis);
    published(&mut page, comparison);
    let _ = writeln!(
        page,
        "</main>\n<footer>Made by mtlora {}.</footer>\n</body>\n</html>",
        env!("CARGO_PKG_VERSION")
    );
    page
}

fn head(page: &mut String, names: &[(&str, bool)]) {
    page.push_str("<thead><tr>");
    for (name, is_number) in names {
        let class = if *is_number { " class=\"number\"" } else { "" };
        let _ = write!(page, "<th{class}>{}</th>", escape(name));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
}

fn section(page: &mut String, comparison: &Comparison, task: &TaskScores, summaries: &[Summary]) {
    let scale = match task.scale {
        1.0 => String::new(),
        scale => format!("{scale} × "),
    };
    let _ = writeln!(
        page,
        "<section><h2>{} <span class=\"of\">{scale}{}, {}</span></h2>\n<div class=\"card wide\"><table>",
        escape(&task.name),
        escape(&task.metric),
        escape(&task.split)
    );
    let points = task
        .arms
        .iter()
        .flat_map(|arm| arm.scores.iter().flatten().copied());
    let ends = summaries.iter().filter_map(|one| one.interval).flatten();
    let range = span(points.chain(ends), 0.02);
    head(
        page,
        &[
            ("arm", false),
            ("scores", false),
            ("mean", true),
            ("difference", true),
            ("spread", true),
            ("trained", true),
            ("time", true),
            ("memory", true),
        ],
    );
    let arms = comparison.arms.iter().zip(&task.arms).zip(summaries);
    for (index, ((name, arm), summary)) in arms.enumerate() {
        let chosen = arm.chosen.as_deref().map_or(String::new(), |chosen| {
            format!("<span class=\"before\">{}</span>", escape(chosen))
        });
        let _ = write!(page, "<tr><th scope=\"row\">{}{chosen}</th>", escape(name));
        let drawing = range.map(|range| {
            let points = Points {
                index,
                seeds: &comparison.seeds,
                decimals: task.decimals(),
            };
            points.drawing(arm, summary, range)
        });
        let _ = write!(page, "<td>{}</td>", drawing.unwrap_or_default());
        for cell in numbers(comparison, arm, summary, task.decimals()) {
            let _ = write!(page, "<td class=\"number\">{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    if let Some(range) = range {
        let _ = writeln!(
            page,
            "<tr><th></th><td>{}</td>{}</tr>",
            axis(range),
            "<td></td>".repeat(6)
        );
    }
    page.push_str("</tbody></table></div></section>\n");
}

fn x(value: f64, (low, high): (f64, f64)) -> f64 {
    MARGIN + (value - low) / (high - low) * (WIDTH - 2.0 * MARGIN)
}

/// How the scores of an arm are drawn.
struct Points<'a> {
    /// The index of the arm, which decides the colour.
    index: usize,
    seeds: &'a [u64],
    /// Decimals of a score.
    decimals: usize,
}

impl Points<'_> {
    /// The scores of an arm as points above the interval of their mean.
    fn drawing(&self, arm: &ArmScores, summary: &Summary, range: (f64, f64)) -> String {
        let Self {
            index,
            seeds,
            decimals,
        } = *self;
        let class = format!("r{}", index % 8);
        let mut svg = format!(
            "<svg class=\"points\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
         aria-label=\"the score of each seed\">"
        );
        if let Some([low, high]) = summary.interval {
            let _ = write!(
                svg,
                "<path class=\"line behind interval {class}\" d=\"M{:.1} 17H{:.1}\"/>",
                x(low, range),
                x(high, range)
            );
        }
        if let Some(mean) = summary.mean {
            let _ = write!(
                svg,
                "<path class=\"line {class}\" d=\"M{:.1} 7V27\"/>",
                x(mean, range)
            );
        }
        for (at, (seed, score)) in seeds.iter().zip(&arm.scores).enumerate() {
            let Some(score) = score else {
                continue;
            };
            // Seeds are at different heights, so that equal scores do not hide each other.
            let y = 9.0 + 16.0 * (at as f64 + 0.5) / seeds.len() as f64;
            let _ = write!(
                svg,
                "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3\"><title>seed {seed}: {score:.decimals$}</title></circle>",
                x(*score, range)
            );
        }
        svg.push_str("</svg>");
        svg
    }
}

fn axis(range: (f64, f64)) -> String {
    let mut svg = format!(
        "<svg class=\"points\" viewBox=\"0 0 {WIDTH} 22\" width=\"{WIDTH}\" height=\"22\" role=\"img\" aria-label=\"scale\">\
         <path class=\"axis\" d=\"M{MARGIN} 1H{}\"/>",
        WIDTH - MARGIN
    );
    let (marks, step) = ticks(range);
    for mark in marks {
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{0:.1} 1V5\"/><text x=\"{0:.1}\" y=\"18\" text-anchor=\"middle\">{1}</text>",
            x(mark, range),
            label(mark, step)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// The cells beside the points.
fn numbers(
    comparison: &Comparison,
    arm: &ArmScores,
    summary: &Summary,
    decimals: usize,
) -> [String; 6] {
    let none = || "–".to_string();
    let small = |text: String| format!("<span class=\"before\">{text}</span>");
    let mean = match (summary.mean, summary.standard_deviation) {
        (Some(mean), Some(deviation)) => format!("{mean:.decimals$} ± {deviation:.decimals$}"),
        (Some(mean), None) => format!("{mean:.decimals$}"),
        (None, _) => none(),
    };
    let runs = arm.without_score(summary.count, comparison.seeds.len());
    let runs = runs.map_or(String::new(), small);
    let costs = arm.costs.as_ref();
    [
        mean + &runs,
        difference(summary, decimals, &small),
        spread(summary, &small),
        costs.map_or(none(), |one| {
            count(one.trainable_parameters as f64)
                + &small(format!("of {}", count(one.total_parameters as f64)))
        }),
        costs
            .and_then(|one| one.train_seconds)
            .map_or(none(), duration),
        costs
            .and_then(|one| one.peak_rss_mb)
            .map_or(none(), |mib| format!("{mib:.0} MiB")),
    ]
}

fn difference(summary: &Summary, decimals: usize, small: &impl Fn(String) -> String) -> String {
    match &summary.difference {
        Some(one) => {
            let conclusion = one.conclusion.told("better", "worse");
            let interval = one.interval.map_or(String::new(), |[low, high]| {
                small(format!("[{low:+.decimals$}, {high:+.decimals$}]"))
            });
            format!("{:+.decimals$}", one.mean)
                + &interval
                + &small(format!("p {:.3}: {conclusion}", one.adjusted))
        }
        None => "–".to_string(),
    }
}

fn spread(summary: &Summary, small: &impl Fn(String) -> String) -> String {
    match &summary.spread {
        Some(one) => {
            let ratio = one
                .ratio
                .map_or("–".to_string(), |ratio| format!("× {ratio:.2}"));
            let conclusion = one.conclusion.told("smaller", "larger");
            ratio + &small(format!("p {:.3}: {conclusion}", one.adjusted))
        }
        None => "–".to_string(),
    }
}

fn over_all(page: &mut String, comparison: &Comparison, analysis: &Analysis) {
    if analysis.all_tasks.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "<section><h2>Mean over all tasks</h2>\n<p class=\"note\">For each seed, the mean of its scores on the tasks, each with the \
         same weight ({}).</p>\n<div class=\"card wide\"><table>",
        escape(&comparison.of_all_tasks())
    );
    head(
        page,
        &[
            ("arm", false),
            ("mean", true),
            ("difference", true),
            ("spread", true),
        ],
    );
    let small = |text: String| format!("<span class=\"before\">{text}</span>");
    for (name, summary) in comparison.arms.iter().zip(&analysis.all_tasks) {
        let decimals = comparison.decimals();
        let [mean, ..] = numbers(comparison, &ArmScores::default(), summary, decimals);
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{mean}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            escape(name),
            difference(summary, decimals, &small),
            spread(summary, &small)
        );
    }
    page.push_str("</tbody></table></div></section>\n");
}

fn published(page: &mut String, comparison: &Comparison) {
    if comparison.published.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>Published results</h2>\n<p class=\"note\">As they were published, with other seeds and other \
         tuning.</p>\n<div class=\"card wide\"><table>\n",
    );
    let mut names = vec![("method", false)];
    names.extend(
        comparison
            .tasks
            .iter()
            .map(|task| (task.name.as_str(), true)),
    );
    names.push(("source", false));
    head(page, &names);
    for one in &comparison.published {
        let _ = write!(page, "<tr><th scope=\"row\">{}</th>", escape(&one.name));
        for task in &comparison.tasks {
            let score = one
                .score(&task.name)
                .map_or("–".to_string(), |score| escape(&score));
            let _ = write!(page, "<td class=\"number\">{score}</td>");
        }
        let _ = writeln!(page, "<td>{}</td></tr>", escape(&one.source));
    }
    page.push_str("</tbody></table></div></section>\n");
}
