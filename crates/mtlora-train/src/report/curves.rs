//! Reads the curves of a run from its metrics log.

use super::ReportError;
use crate::run::log::{LogLine, LoggedEvaluation, LoggedStep, MetricsLog};

/// The steps and evaluations of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// The training steps.
    pub steps: Vec<LoggedStep>,
    /// The evaluations.
    pub evaluations: Vec<LoggedEvaluation>,
}

impl Curves {
    /// Reads a metrics log. A log that does not exist counts as empty.
    pub fn read(log: &MetricsLog) -> Result<Self, ReportError> {
        let path = log.path();
        let lines = log.lines().map_err(|source| ReportError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let mut curves = Self::default();
        for (line, number) in lines.into_iter().zip(1..) {
            match line {
                // A NaN loss cannot be drawn.
                Ok(LogLine::Step(step)) if step.loss.is_nan() => {}
                Ok(LogLine::Step(step)) => curves.steps.push(step),
                Ok(LogLine::Evaluation(evaluation)) => curves.evaluations.push(evaluation),
                Ok(LogLine::Other {}) => {}
                Err(error) => {
                    return Err(ReportError::Line {
                        path: path.to_path_buf(),
                        line: number,
                        reason: error.to_string(),
                    });
                }
            }
        }
        Ok(curves)
    }

    /// The values of a metric on the dev split, by step.
    pub(super) fn dev(&self, metric: &str) -> Vec<(f64, f64)> {
        let value = |one: &LoggedEvaluation| Some((one.step as f64, one.dev.get(metric)?));
        self.evaluations.iter().filter_map(value).collect()
    }
}

/// The moving mean of a curve over this many neighbours on each side, and over fewer near its ends.
pub(super) fn smoothed(points: &[(f64, f64)], each_side: usize) -> Vec<(f64, f64)> {
    let mut sums = vec![0.0];
    for (_, y) in points {
        sums.push(sums[sums.len() - 1] + y);
    }
    let mean = |(index, (x, _)): (usize, &(f64, f64))| {
        // The number of neighbours is the same on both sides. Otherwise a falling curve would be too low at its
        // beginning and too high at its end.
        let side = each_side.min(index).min(points.len() - 1 - index);
        let sum = sums[index + side + 1] - sums[index - side];
        (*x, sum / (2 * side + 1) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

/// Reduces a curve to at most `most` points, each the mean of neighbouring points.
pub(super) fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(most.max(1)).max(1);
    let mean = |group: &[(f64, f64)]| {
        let count = group.len() as f64;
        let sum = |value: fn(&(f64, f64)) -> f64| group.iter().map(value).sum::<f64>() / count;
        (sum(|point| point.0), sum(|point| point.1))
    };
    points.chunks(group).map(mean).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> Result<Curves, ReportError> {
        let folder = tempfile::tempdir().unwrap();
        let log = MetricsLog::of_run(folder.path());
        fs::write(log.path(), text).unwrap();
        Curves::read(&log)
    }

    #[test]
    fn steps_and_evaluations_are_distinguished_and_an_unfinished_line_is_ignored() {
        let text = concat!(
            r#"{"step":0,"dev":{"accuracy":0.5,"pearson":null}}"#,
            "\n",
            r#"{"step":1,"steps":9,"epoch":0.1,"loss":2.5,"learning_rate":0.1}"#,
            "\n",
            r#"{"note":"something new"}"#,
            "\n",
            r#"{"step":2,"ste"#
        );
        let curves = read(text).unwrap();
        assert_eq!(curves.steps.len(), 1);
        assert_eq!((curves.steps[0].steps, curves.steps[0].loss), (9, 2.5));
        assert_eq!(curves.dev("accuracy"), [(0.0, 0.5)]);
        assert!(curves.dev("pearson").is_empty());
        assert_eq!(read("").unwrap(), Curves::default());
        assert_eq!(
            Curves::read(&MetricsLog::of_run(Path::new("nowhere"))).unwrap(),
            Curves::default()
        );
        let error = read("{}\nfoo\n").unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl:2: "), "{error}");
    }

    #[test]
    fn smoothing_keeps_a_straight_line_and_thinning_keeps_the_mean() {
        let line: Vec<(f64, f64)> = (0..100).map(|x| (f64::from(x), f64::from(x))).collect();
        assert_eq!(smoothed(&line, 7), line);
        let noisy: Vec<(f64, f64)> = (0..100).map(|x| (f64::from(x), f64::from(x % 2))).collect();
        assert!((smoothed(&noisy, 7)[50].1 - 0.5).abs() < 0.05);
        assert!(smoothed(&[], 7).is_empty());
        let thin = thinned(&line, 10);
        assert_eq!(thin.len(), 10);
        assert_eq!(thin[0], (4.5, 4.5));
        assert_eq!(thinned(&line, 500), line);
        assert!(thinned(&[], 5).is_empty());
    }
}
