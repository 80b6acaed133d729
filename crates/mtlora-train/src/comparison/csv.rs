//! A comparison as CSV, with one line for each task and arm, and one for each arm's mean over all tasks.

use std::io;

use super::analysis::{Analysis, Conclusion, Summary};
use super::{ALL_TASKS, ArmScores, Comparison};

const COLUMNS: [&str; 26] = [
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
    "bootstrap_low",
    "bootstrap_high",
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
            let place = [&task.name, name, &task.metric, &task.split].map(String::clone);
            let mut record = row(comparison, place, task.scale, arm, summary);
            if costs {
                record.extend(of_costs(arm));
            }
            writer.write_record(&record)?;
        }
    }
    // The mean over all tasks, which has neither runs nor settings of its own.
    let scale = comparison.tasks.first().map_or(1.0, |task| task.scale);
    for (name, summary) in comparison.arms.iter().zip(&analysis.all_tasks) {
        let place = [ALL_TASKS, name, &comparison.of_all_tasks(), ""].map(str::to_string);
        let mut record = row(comparison, place, scale, &ArmScores::default(), summary);
        if costs {
            record.extend(of_costs(&ArmScores::default()));
        }
        writer.write_record(&record)?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The columns of an arm, of which `place` is the task, the arm, the metric and the split.
fn row(
    comparison: &Comparison,
    place: [String; 4],
    scale: f64,
    arm: &ArmScores,
    summary: &Summary,
) -> Vec<String> {
    let difference = summary.difference.as_ref();
    let spread = summary.spread.as_ref();
    let end = |of: Option<[f64; 2]>, at: usize| number(of.map(|ends| ends[at]));
    let told = |conclusion: Option<Conclusion>| {
        conclusion.map_or(String::new(), |one| one.told("better", "worse").to_string())
    };
    let mut record = Vec::from(place);
    record.extend([
        scale.to_string(),
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
        told(difference.map(|one| one.conclusion)),
        number(spread.and_then(|one| one.ratio)),
        number(spread.map(|one| one.p_value)),
        number(spread.map(|one| one.adjusted)),
        told(spread.map(|one| one.conclusion)),
        arm.chosen.clone().unwrap_or_default(),
        arm.nan.to_string(),
        end(difference.and_then(|one| one.bootstrap), 0),
        end(difference.and_then(|one| one.bootstrap), 1),
    ]);
    record
}

fn of_costs(arm: &ArmScores) -> [String; 4] {
    let Some(costs) = arm.costs else {
        return Default::default();
    };
    [
        costs.trainable_parameters.to_string(),
        costs.total_parameters.to_string(),
        number(costs.train_seconds),
        number(costs.peak_rss_mb),
    ]
}

/// A number with its full precision, or nothing.
fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::comparison::analysis::tests::example;

    #[test]
    fn numbers_are_read_back_as_they_were() {
        let comparison = example();
        let analysis = comparison.analysis();
        for (costs, columns) in [(false, 26), (true, 30)] {
            let text = comparison.to_csv(costs).unwrap();
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            assert_eq!(rows.len(), 9);
            assert!(rows.iter().all(|row| row.len() == columns));
            let mean: f64 = rows[1][8].parse().unwrap();
            assert_eq!(Some(mean), analysis.tasks[0][1].mean);
            assert_eq!((&rows[1][17], &rows[0][17]), ("better", ""));
            let mean: f64 = rows[7][8].parse().unwrap();
            assert_eq!(Some(mean), analysis.all_tasks[1].mean);
            assert_eq!((&rows[7][0], &rows[7][1]), ("all tasks", "up"));
        }
    }
}
