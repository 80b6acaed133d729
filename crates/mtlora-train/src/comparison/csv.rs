//! A comparison as CSV, with one line for each task and arm.

use std::io;

use super::analysis::{Analysis, Conclusion};
use super::{ArmScores, Comparison};

const COLUMNS: [&str; 24] = [
    "task",
    "arm",
    "metric",
    "split",
    "scale",
    "seeds",
    "runs",
    "diverged",
    "mean",
    "standard_deviation",
    "interval_low",
    "interval_high",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_adjusted",
    "conclusion",
    "spread_ratio",
    "spread_p",
    "spread_p_adjusted",
    "spread_conclusion",
    "chosen",
    "nan",
];
const COSTS: [&str; 4] = [
    "trainable_parameters",
    "total_parameters",
    "train_seconds",
    "peak_rss_mb",
];

pub(super) fn write(
    comparison: &Comparison,
    analysis: &Analysis,
    costs: bool,
) -> io::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let extra = if costs { &COSTS[..] } else { &[] };
    writer.write_record(COLUMNS.iter().chain(extra))?;
    for (task, summaries) in comparison.tasks.iter().zip(&analysis.tasks) {
        for ((name, arm), summary) in comparison.arms.iter().zip(&task.arms).zip(summaries) {
            let difference = summary.difference.as_ref();
            let spread = summary.spread.as_ref();
            let end = |of: Option<[f64; 2]>, at: usize| number(of.map(|ends| ends[at]));
            let mut record = vec![
                task.name.clone(),
                name.clone(),
                task.metric.clone(),
                task.split.clone(),
                task.scale.to_string(),
                comparison.seeds.len().to_string(),
                summary.count.to_string(),
                arm.diverged.to_string(),
                number(summary.mean),
                number(summary.standard_deviation),
                end(summary.interval, 0),
                end(summary.interval, 1),
                number(difference.map(|one| one.mean)),
                end(difference.and_then(|one| one.interval), 0),
                end(difference.and_then(|one| one.interval), 1),
                number(difference.map(|one| one.p_value)),
                number(difference.map(|one| one.adjusted)),
                conclusion(difference.map(|one| one.conclusion)).to_string(),
                number(spread.and_then(|one| one.ratio)),
                number(spread.map(|one| one.p_value)),
                number(spread.map(|one| one.adjusted)),
                conclusion(spread.map(|one| one.conclusion)).to_string(),
                arm.chosen.clone().unwrap_or_default(),
                arm.nan.to_string(),
            ];
            if costs {
                record.extend(of_costs(arm));
            }
            writer.write_record(&record)?;
        }
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn of_costs(arm: &ArmScores) -> [String; 4] {
    let Some(costs) = arm.costs else {
        return Default::default();
    };
    [
        costs.trainable_parameters.to_string(),
        costs.total_parameters.to_string(),
        number(Some(costs.train_seconds)),
        number(costs.peak_rss_mb),
    ]
}

/// A number with its full precision, or nothing.
fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn conclusion(conclusion: Option<Conclusion>) -> &'static str {
    match conclusion {
        Some(Conclusion::Better) => "better",
        Some(Conclusion::Worse) => "worse",
        Some(Conclusion::CannotBeToldApart) => "cannot be told apart",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::comparison::analysis::tests::example;

    #[test]
    fn numbers_are_read_back_as_they_were() {
        let comparison = example();
        let analysis = comparison.analysis();
        for (costs, columns) in [(false, 24), (true, 28)] {
            let text = comparison.to_csv(costs).unwrap();
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            assert_eq!(rows.len(), 6);
            assert!(rows.iter().all(|row| row.len() == columns));
            let mean: f64 = rows[1][8].parse().unwrap();
            assert_eq!(Some(mean), analysis.tasks[0][1].mean);
            assert_eq!((&rows[1][17], &rows[0][17]), ("better", ""));
        }
    }
}
