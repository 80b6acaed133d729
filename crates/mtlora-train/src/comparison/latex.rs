//! The scores of a comparison as a LaTeX table.

use std::fmt::Write;

use super::analysis::{Analysis, Conclusion, Summary};
use super::markdown::number;
use super::statistics::sign_flip_name;
use super::{ALL_TASKS, Comparison, seed_count};

pub(super) fn write(comparison: &Comparison, analysis: &Analysis) -> String {
    let mut columns: Vec<(String, usize, &[Summary])> = comparison
        .tasks
        .iter()
        .zip(&analysis.tasks)
        .map(|(task, arms)| {
            let metric = escape(&task.metric);
            (
                format!("{} ({metric})", escape(&task.name)),
                task.decimals(),
                arms.as_slice(),
            )
        })
        .collect();
    if !analysis.all_tasks.is_empty() {
        let decimals = comparison.decimals();
        columns.push((ALL_TASKS.to_string(), decimals, &analysis.all_tasks));
    }
    let mut text = String::from("% Needs \\usepackage{booktabs}.\n");
    let _ = writeln!(
        text,
        "\\begin{{tabular}}{{l{}}}\n\\toprule",
        "r".repeat(columns.len())
    );
    let names: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
    let _ = writeln!(text, "& {} \\\\\n\\midrule", names.join(" & "));
    for (arm, name) in comparison.arms.iter().enumerate() {
        let cells = columns.iter().map(|(_, decimals, arms)| {
            let summary = arms.get(arm);
            summary.map_or(String::new(), |summary| cell(summary, *decimals))
        });
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(text, "{} & {} \\\\", escape(name), cells.join(" & "));
    }
    if !comparison.published.is_empty() {
        text.push_str("\\midrule\n");
    }
    for one in &comparison.published {
        let mut cells: Vec<String> = Vec::new();
        for task in &comparison.tasks {
            let score = one.score(&task.name).unwrap_or("--".to_string());
            cells.push(escape(&score).replace('±', "$\\pm$"));
        }
        cells.resize(columns.len(), "--".to_string());
        let _ = writeln!(text, "{} & {} \\\\", escape(&one.name), cells.join(" & "));
    }
    text.push_str("\\bottomrule\n\\end{tabular}\n");
    let baseline = comparison
        .arms
        .get(comparison.baseline)
        .map_or("", String::as_str);
    let _ = writeln!(
        text,
        "% Mean and standard deviation over {}. $^{{+}}$ and $^{{-}}$: better and worse than {} ({},\n\
         % paired by seed, Holm's adjustment, 5 \\%). {}",
        seed_count(comparison.seeds.len()),
        escape(baseline),
        sign_flip_name(analysis.reach.seeds),
        if analysis.reach.is_enough() {
            "All others cannot be told apart from it."
        } else {
            "There are too few seeds for that."
        }
    );
    for (task, arm, why) in without_score(comparison, analysis) {
        let _ = writeln!(text, "% {}, {}: {why}.", escape(task), escape(arm));
    }
    if !analysis.all_tasks.is_empty() {
        let _ = writeln!(
            text,
            "% {ALL_TASKS}: for each seed, the mean of its scores on the tasks ({}).",
            escape(&comparison.of_all_tasks())
        );
    }
    text
}

/// The arms with runs that have no score, with what became of these.
fn without_score<'a>(
    comparison: &'a Comparison,
    analysis: &'a Analysis,
) -> impl Iterator<Item = (&'a str, &'a str, String)> {
    let tasks = comparison.tasks.iter().zip(&analysis.tasks);
    tasks.flat_map(move |(task, summaries)| {
        let arms = comparison.arms.iter().zip(&task.arms).zip(summaries);
        arms.filter_map(move |((name, arm), summary)| {
            let why = arm.without_score(summary.count, comparison.seeds.len())?;
            Some((task.name.as_str(), name.as_str(), why))
        })
    })
}

fn cell(summary: &Summary, decimals: usize) -> String {
    let Some(mean) = summary.mean else {
        return "--".to_string();
    };
    let mark = match summary.difference.map(|one| one.conclusion) {
        Some(Conclusion::Better) => "^{+}",
        Some(Conclusion::Worse) => "^{-}",
        Some(Conclusion::CannotBeToldApart | Conclusion::TooFewSeeds) | None => "",
    };
    let number = |value| number(value, decimals);
    match summary.standard_deviation {
        Some(deviation) => format!("${}{mark}_{{\\pm {}}}$", number(mean), number(deviation)),
        None => format!("${}{mark}$", number(mean)),
    }
}

/// Escapes LaTeX's special characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '\\' => escaped.push_str("\\textbackslash{}"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::analysis::tests::example;

    #[test]
    fn every_row_has_its_columns_and_special_characters_are_escaped() {
        let text = example().to_latex();
        assert!(text.contains("\\begin{tabular}{lrrr}"), "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.ends_with("\\\\")).collect();
        assert_eq!(rows.len(), 4);
        assert!(
            rows.iter()
                .all(|row| row.matches(" & ").count() + usize::from(row.starts_with("& ")) == 3),
            "{text}"
        );
        assert!(rows[3].starts_with("like\\_this & $"), "{text}");
        assert!(rows[2].contains("^{+}_{\\pm "), "{text}");
        assert_eq!(
            escape("a&b^\\"),
            "a\\&b\\textasciicircum{}\\textbackslash{}"
        );
    }
}
