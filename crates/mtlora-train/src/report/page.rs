//! The HTML page around the charts.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::chart::{Chart, Series, significant};
use super::curves::{smoothed, thinned};
use super::settings::{Setting, settings};
use super::{Report, RunReport};
use crate::metrics::labels::MetricName;
use crate::metrics::text as text_metrics;
use crate::run::log::LoggedStep;

pub(super) const STYLE: &str = include_str!("style.css");
/// The number of colours; the lines of further runs are dashed.
const COLOURS: usize = 8;
/// The largest number of points in a line.
const POINTS: usize = 400;
/// Lines with fewer steps than this are not smoothed.
const SMOOTH_FROM: usize = 40;
/// The moving mean reaches to each side over the number of steps divided by this.
const SMOOTH_PART: usize = 40;
/// With more runs than this only the means are drawn, because single steps would hide each other.
const BEHIND: usize = 3;

/// Escapes `text` for HTML.
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            // XML cannot represent the other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}

/// The CSS class that gives the colour of a run.
fn class(run: usize) -> String {
    let dashed = if run >= COLOURS { " dashed" } else { "" };
    format!("r{}{dashed}", run % COLOURS)
}

pub(super) fn page(report: &Report) -> String {
    let runs = &report.runs;
    let title = match runs.as_slice() {
        [run] => escape(&run.name),
        runs => format!("{} runs", runs.len()),
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{title} · mtlora</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
    );
    if runs.len() > 1 {
        page.push_str("<ul class=\"legend\">");
        for (index, run) in runs.iter().enumerate() {
            let _ = write!(page, "<li>{}{}</li>", swatch(index), escape(&run.name));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</header>\n<main>\n");
    finals(&mut page, runs);
    curves(&mut page, runs);
    for (index, run) in runs.iter().enumerate() {
        for section in &run.sections {
            let of = match runs.len() {
                1 => String::new(),
                _ => format!(
                    " <span class=\"of\">{}{}</span>",
                    swatch(index),
                    escape(&run.name)
                ),
            };
            let _ = writeln!(
                page,
                "<section><h2>{}{of}</h2>\n<div class=\"card wide\">{}</div></section>",
                escape(&section.title),
                section.html
            );
        }
    }
    side_by_side(&mut page, runs);
    let _ = writeln!(
        page,
        "</main>\n<footer>Made by mtlora {}.</footer>\n</body>\n</html>",
        env!("CARGO_PKG_VERSION")
    );
    page
}

/// A sample of a run's line, for the legend.
fn swatch(run: usize) -> String {
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 22 10\" aria-hidden=\"true\"><path class=\"line {}\" d=\"M1 5H21\"/></svg>",
        class(run)
    )
}

/// The metrics that at least one of the runs has, in the order of [`MetricName::ALL`].
fn metrics(runs: &[RunReport]) -> Vec<&'static str> {
    let evaluations = runs.iter().flat_map(|run| &run.curves.evaluations);
    let there: BTreeSet<&str> = evaluations
        .flat_map(|one| one.dev.iter().map(|(name, _)| name))
        .collect();
    let all = MetricName::ALL.map(MetricName::as_str).into_iter();
    all.filter(|name| there.contains(name)).collect()
}

/// The text metrics that at least one of the complete runs has.
fn metrics_of_texts(runs: &[RunReport]) -> Vec<&str> {
    let mut names = Vec::new();
    let results = runs.iter().filter_map(|run| run.results.as_ref());
    for (name, _) in results.flat_map(|results| results.metrics.of_texts()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn finals(page: &mut String, runs: &[RunReport]) {
    let mut metrics: Vec<&str> = metrics(runs);
    metrics.extend(metrics_of_texts(runs));
    page.push_str("<section><h2>Final metrics</h2>\n<div class=\"card wide\"><table>\n<thead><tr><th>run</th>");
    for metric in &metrics {
        let _ = write!(page, "<th class=\"number\">{}</th>", escape(metric));
    }
    for name in [
        "kept step",
        "steps",
        "trained",
        "time",
        "tokens/s",
        "memory",
    ] {
        let _ = write!(page, "<th class=\"number\">{name}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    // The best value of each metric is highlighted if there are several complete runs of the same task.
    let best = |metric: &str, of: &RunReport| {
        let sign = match metric.parse() {
            Ok(name) if MetricName::higher_is_better(name) => 1.0,
            Ok(_) => -1.0,
            Err(_) if text_metrics::higher_is_better(metric) => 1.0,
            Err(_) => -1.0,
        };
        let task = |run: &RunReport| {
            run.settings
                .get("data")
                .and_then(|data| data.get("task"))
                .cloned()
        };
        let peers = runs
            .iter()
            .filter(|run| run.results.is_some() && task(run) == task(of));
        let values = peers.filter_map(|run| kept(run, metric));
        let values: Vec<f64> = values.map(|value| sign * value).collect();
        let best = values.iter().copied().max_by(f64::total_cmp);
        best.filter(|_| values.len() > 1).map(|value| sign * value)
    };
    for (index, run) in runs.iter().enumerate() {
        let mark = if runs.len() > 1 {
            swatch(index)
        } else {
            String::new()
        };
        let _ = write!(
            page,
            "<tr><th scope=\"row\">{mark}{}</th>",
            escape(&run.name)
        );
        for metric in &metrics {
            let value = kept(run, metric);
            let class = if run.results.is_some() && value.is_some() && value == best(metric, run) {
                "number top"
            } else {
                "number"
            };
            let before = run
                .curves
                .dev(metric)
                .first()
                .filter(|first| first.0 == 0.0)
                .map(|first| first.1);
            let before = before.map_or(String::new(), |before| {
                format!("<span class=\"before\">from {}</span>", significant(before))
            });
            match value {
                Some(value) => {
                    let _ = write!(
                        page,
                        "<td class=\"{class}\">{}{before}</td>",
                        significant(value)
                    );
                }
                None => page.push_str("<td class=\"number\">–</td>"),
            }
        }
        let cells = match &run.results {
            Some(results) => [
                results.best_step.to_string(),
                results.steps.to_string(),
                format!(
                    "{}<span class=\"before\">of {}</span>",
                    count(results.trainable_parameters as f64),
                    count(results.total_parameters as f64)
                ),
                duration(results.train_seconds),
                count(results.tokens_per_second),
                results
                    .peak_rss_mb
                    .map_or("–".to_string(), |mib| format!("{mib:.0} MiB")),
            ],
            None => {
                let last = run.curves.steps.last();
                let steps = last.map_or("0".to_string(), |last| {
                    format!(
                        "{}<span class=\"before\">of {}, not complete</span>",
                        last.step, last.steps
                    )
                });
                let none = || "–".to_string();
                [none(), steps, none(), none(), none(), none()]
            }
        };
        for cell in cells {
            let _ = write!(page, "<td class=\"number\">{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div></section>\n");
}

/// A metric of the state that a run kept, or the latest value if the run is not complete.
fn kept(run: &RunReport, metric: &str) -> Option<f64> {
    match &run.results {
        Some(results) => results.metrics.get(metric),
        None => run.curves.dev(metric).last().map(|last| last.1),
    }
}

fn curves(page: &mut String, runs: &[RunReport]) {
    let mut charts = main_charts(runs);
    charts.push(chart("learning rate", runs, |run| {
        let steps = run.curves.steps.iter();
        let all: Vec<(f64, f64)> = steps
            .map(|one| (one.step as f64, one.learning_rate))
            .collect();
        (thinned(&all, POINTS), Vec::new())
    }));
    charts.push(chart("rank of all adapters", runs, |run| {
        let steps = run.curves.steps.iter();
        let budget = |one: &LoggedStep| Some((one.step as f64, one.rank_budget? as f64));
        let all: Vec<(f64, f64)> = steps.filter_map(budget).collect();
        (thinned(&all, POINTS), Vec::new())
    }));
    let figures: Vec<String> = charts
        .iter()
        .enumerate()
        .filter_map(|(number, chart)| chart.figure(number))
        .collect();
    if figures.is_empty() {
        return;
    }
    let note = match runs.len() {
        0..=BEHIND => "The training loss is faint step by step, and strong as a moving mean. ",
        _ => "The training loss is a moving mean over steps. ",
    };
    let _ = writeln!(
        page,
        "<section><h2>Curves</h2>\n<p class=\"note\">{note}A ring marks the evaluation whose state was \
         kept.</p>\n<div class=\"charts\">\n{}</div></section>",
        figures.concat()
    );
}

/// The name of the examples on which the best states were chosen.
fn chosen_on(runs: &[RunReport]) -> &'static str {
    let held_back = |run: &&RunReport| {
        let data = run.settings.get("data");
        data.is_some_and(|data| data.get("validation_fraction").is_some())
    };
    match runs.iter().filter(held_back).count() {
        0 => "dev",
        count if count == runs.len() => "held-back",
        _ => "dev or held-back",
    }
}

/// The training loss, and each metric on the dev split, or on the examples that were held back.
pub(super) fn main_charts(runs: &[RunReport]) -> Vec<Chart> {
    let mut charts = vec![chart("training loss", runs, |run| {
        let steps = run.curves.steps.iter();
        let all: Vec<(f64, f64)> = steps.map(|one| (one.step as f64, one.loss)).collect();
        if all.len() < SMOOTH_FROM {
            (all, Vec::new())
        } else {
            let smooth = smoothed(&all, all.len() / SMOOTH_PART);
            let behind = if runs.len() > BEHIND { &[][..] } else { &all };
            (thinned(&smooth, POINTS), thinned(behind, POINTS))
        }
    })];
    let scored = chosen_on(runs);
    for metric in metrics(runs) {
        let mut one = chart(&format!("{scored} {metric}"), runs, |run| {
            (run.curves.dev(metric), Vec::new())
        });
        for (series, run) in one.series.iter_mut().zip(runs) {
            series.dots = series.points.len() <= POINTS / 4;
            series.best = run.results.as_ref().map(|results| results.best_step as f64);
        }
        charts.push(one);
    }
    charts
}

/// The lines of a run: the prominent one, and the faint one behind it.
fn chart(
    title: &str,
    runs: &[RunReport],
    lines: impl Fn(&RunReport) -> (Vec<(f64, f64)>, Vec<(f64, f64)>),
) -> Chart {
    let series = runs.iter().enumerate().map(|(index, run)| {
        let (points, behind) = lines(run);
        Series {
            name: run.name.clone(),
            class: class(index),
            points,
            behind,
            dots: false,
            best: None,
        }
    });
    Chart {
        title: title.to_string(),
        series: series.collect(),
    }
}

fn side_by_side(page: &mut String, runs: &[RunReport]) {
    let tables: Vec<&toml::Table> = runs.iter().map(|run| &run.settings).collect();
    let (same, differ): (Vec<Setting>, Vec<Setting>) =
        settings(&tables).into_iter().partition(Setting::same);
    page.push_str("<section><h2>Settings</h2>\n");
    if !differ.is_empty() {
        page.push_str(
            "<div class=\"card wide\"><table class=\"settings\">\n<thead><tr><th>that differ</th>",
        );
        for (index, run) in runs.iter().enumerate() {
            let _ = write!(page, "<th>{}{}</th>", swatch(index), escape(&run.name));
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        for setting in &differ {
            let _ = write!(page, "<tr><th scope=\"row\">{}</th>", name(setting));
            for value in &setting.values {
                let value = value.as_deref().map_or("–".to_string(), escape);
                let _ = write!(page, "<td>{value}</td>");
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody></table></div>\n");
    }
    let groups = same.chunk_by(|one, next| one.section() == next.section());
    let groups: String = groups.map(group).collect();
    if runs.len() == 1 {
        let _ = writeln!(page, "<div class=\"groups\">{groups}</div>");
    } else if !same.is_empty() {
        let _ = writeln!(
            page,
            "<details><summary>{} that are the same in all</summary>\n<div class=\"groups\">{groups}</div></details>",
            same.len()
        );
    }
    page.push_str("</section>\n");
}

/// The settings of one section that have the same value in all runs.
fn group(settings: &[Setting]) -> String {
    let title = match settings.first().map_or("", Setting::section) {
        "" => "run",
        section => section,
    };
    let mut html = format!("<div class=\"card\"><h3>{}</h3>\n<dl>", escape(title));
    for setting in settings {
        let value = setting.values[0].as_deref().map_or(String::new(), escape);
        let _ = write!(html, "<dt>{}</dt><dd>{value}</dd>", escape(setting.leaf()));
    }
    html.push_str("</dl></div>\n");
    html
}

/// The name of a setting, with its section in a fainter colour.
fn name(setting: &Setting) -> String {
    let section = match setting.section() {
        "" => String::new(),
        section => format!("<span class=\"section\">{}.</span>", escape(section)),
    };
    format!("{section}{}", escape(setting.leaf()))
}

/// `12 345`, `1.23 M`.
pub(super) fn count(value: f64) -> String {
    if value >= 1e6 {
        return format!("{:.2} M", value / 1e6);
    }
    let whole = value.round() as u64;
    match whole / 1000 {
        0 => whole.to_string(),
        thousands => format!("{thousands}\u{202f}{:03}", whole % 1000),
    }
}

/// `7.8 s`, `3 min 05 s`, `2 h 07 min`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quick_xml::Reader;
    use quick_xml::events::Event;

    use super::*;
    use crate::report::{Curves, Section};
    use crate::run::log::{LoggedEvaluation, LoggedStep};
    use crate::run::results::RunResults;

    fn run(name: &str, steps: usize, complete: bool) -> RunReport {
        let metrics = [("accuracy", steps as f64 / 1000.0)].into_iter().collect();
        let evaluation = |step: usize| LoggedEvaluation {
            step,
            dev: [("accuracy", step as f64 / 1000.0), ("pearson", f64::NAN)]
                .into_iter()
                .collect(),
        };
        RunReport {
            name: name.to_string(),
            settings: format!("[data]\ntask = '<sea> & \"land\"'\n[training]\nsteps = {steps}\n")
                .parse()
                .unwrap(),
            curves: Curves {
                steps: (1..=steps)
                    .map(|step| LoggedStep {
                        step,
                        steps,
                        loss: 1.0 / step as f64,
                        learning_rate: 1e-4,
                        ..LoggedStep::default()
                    })
                    .collect(),
                evaluations: [0, steps / 2, steps].map(evaluation).into(),
            },
            results: complete.then(|| RunResults {
                metrics,
                best_step: steps / 2,
                steps,
                trainable_parameters: 12345,
                train_seconds: 3723.0,
                ..RunResults::default()
            }),
            sections: vec![Section {
                title: "More <of> it".to_string(),
                html: "<p>inside</p>".to_string(),
            }],
        }
    }

    /// Checks that the page's tags are closed in the right order, and that each `&` begins an escape sequence.
    fn assert_well_formed(page: &str) {
        let mut reader = Reader::from_str(page);
        reader.config_mut().check_end_names = true;
        let mut open = 0;
        loop {
            match reader.read_event().unwrap() {
                Event::Start(_) => open += 1,
                Event::End(_) => open -= 1,
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(open, 0);
    }

    #[test]
    fn the_page_is_complete_and_loads_nothing_else() {
        let names = ["a <b>", "two", "three", "four", "5", "6", "7", "8", "nine"];
        for count in [0, 1, 2, 9] {
            let runs = names[..count].iter().enumerate();
            let runs = runs.map(|(index, name)| run(name, 100 * (index + 1), index % 2 == 0));
            let page = Report {
                runs: runs.collect(),
            }
            .to_html();
            assert_well_formed(&page);
            for outside in ["http:", "https:", "<script", "src=", "@import", "<link"] {
                assert!(!page.contains(outside), "{outside}");
            }
            assert!(!page.contains("NaN") && !page.contains("a <b>"));
            assert_eq!(page.contains("a &lt;b&gt;"), count > 0);
            assert_eq!(page.matches("<p>inside</p>").count(), count);
            assert_eq!(page.contains("r0 dashed"), count > 8);
            assert_eq!(page.contains("1 h 02 min"), count > 0);
            assert_eq!(page.contains("of 200, not complete"), count > 1);
            // A metric without values has no chart.
            assert!(!page.contains("dev pearson"));
        }
    }

    #[test]
    fn the_best_of_several_runs_is_highlighted() {
        let page = |runs| Report { runs }.to_html();
        let mut other = run("another task", 900, true);
        other.settings = "data.task = 'land'".parse().unwrap();
        let all = [
            run("one", 100, true),
            run("two", 300, true),
            run("three", 700, false),
            other,
        ];
        let several = page(all.to_vec());
        assert_eq!(several.matches("number top").count(), 1);
        let two = page(all[..2].to_vec());
        assert_eq!(two.matches("number top").count(), 1);
        assert!(two.contains("number top\">0.3000"));
        assert!(two.contains("1 that are the same in all"));
        let one = page(vec![run("one", 100, true)]);
        assert!(!one.contains("number top") && !one.contains("that differ"));
    }

    #[test]
    fn the_table_shows_text_metrics() {
        let scored = |name: &str, bleu: f64, ter: f64| {
            let mut run = run(name, 100, true);
            let results = run.results.as_mut().unwrap();
            results
                .metrics
                .extend([("bleu", bleu), ("ter", ter), ("chrf++", 50.0)]);
            run
        };
        let mut runs = vec![scored("one", 40.5, 30.25), scored("two", 41.5, 31.25)];
        runs.push(run("three", 100, false));
        let page = Report { runs }.to_html();
        assert_well_formed(&page);
        for shown in [
            "<th class=\"number\">bleu</th>",
            "<th class=\"number\">chrf++</th>",
        ] {
            assert!(page.contains(shown), "{shown}");
        }
        // Higher is better except for TER; equal values are highlighted in both runs.
        assert!(page.contains("number top\">41.5") && !page.contains("number top\">40.5"));
        assert!(page.contains("number top\">30.2") && !page.contains("number top\">31.2"));
        assert!(!page.contains("dev bleu"));
    }

    #[test]
    fn a_chart_names_the_examples_that_were_scored() {
        let mut other = run("two", 100, true);
        other.settings = "data.validation_fraction = 0.1".parse().unwrap();
        let runs = [run("one", 100, true), other];
        for (runs, title) in [
            (&runs[..1], "dev accuracy"),
            (&runs[1..], "held-back accuracy"),
            (&runs[..], "dev or held-back accuracy"),
        ] {
            let charts = main_charts(runs);
            let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
            assert!(titles.contains(&title), "{titles:?}");
        }
    }

    #[test]
    fn a_run_that_has_just_begun_has_a_page() {
        let mut begun = run("begun", 1, false);
        begun.curves = Curves::default();
        let page = Report { runs: vec![begun] }.to_html();
        assert_well_formed(&page);
        assert!(!page.contains("<figure"));
    }

    #[test]
    fn numbers_are_formatted_for_reading() {
        let numbers = [7.0, 12345.0, 1000.0, 1.234e6].map(count);
        assert_eq!(numbers, ["7", "12\u{202f}345", "1\u{202f}000", "1.23 M"]);
        let times = [7.84, 185.0, 7620.0].map(duration);
        assert_eq!(times, ["7.8 s", "3 min 05 s", "2 h 07 min"]);
    }
}
