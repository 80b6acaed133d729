//! The metrics of the GLUE tasks, computed as in scikit-learn and SciPy.

use std::fmt;
use std::str::FromStr;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::data::example::Target;

/// A metric. Files and reports use its name in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricName {
    /// The share of examples whose most probable class is correct, from 0 to 1.
    Accuracy,
    /// The harmonic mean of precision and recall of [`Predictions::positive_class`], from 0 to 1. It is defined for two
    /// classes.
    F1,
    /// Matthews' correlation coefficient for any number of classes, from -1 to 1.
    Matthews,
    /// Pearson's correlation of predicted and true values, from -1 to 1.
    Pearson,
    /// Spearman's correlation, which is Pearson's correlation of the ranks of the values, from -1 to 1.
    Spearman,
    /// The root of the mean squared error of a regression, in the unit of its values.
    Rmse,
    /// The mean cross entropy in nats or, in a regression, the mean squared error.
    Loss,
    /// The exponential of the mean cross entropy of a language model's tokens.
    Perplexity,
    /// The share of a language model's tokens that it finds the likeliest, from 0 to 1.
    #[serde(rename = "token_accuracy")]
    TokenAccuracy,
}

impl MetricName {
    /// All metrics.
    pub const ALL: [Self; 9] = [
        Self::Accuracy,
        Self::F1,
        Self::Matthews,
        Self::Pearson,
        Self::Spearman,
        Self::Rmse,
        Self::Loss,
        Self::Perplexity,
        Self::TokenAccuracy,
    ];

    /// The name in reports, in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Matthews => "matthews",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
            Self::Rmse => "rmse",
            Self::Loss => "loss",
            Self::Perplexity => "perplexity",
            Self::TokenAccuracy => "token_accuracy",
        }
    }

    /// Whether a higher value is better, which holds for all metrics but those of errors.
    pub fn higher_is_better(self) -> bool {
        !self.is_error()
    }

    /// Whether it measures an error, whose size depends on the task and its unit: loss, perplexity and RMSE. All others are
    /// shares or correlations.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Rmse | Self::Loss | Self::Perplexity)
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for MetricName {
    type Err = MetricError;

    fn from_str(name: &str) -> Result<Self, MetricError> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.as_str() == name)
            .ok_or_else(|| MetricError::Unknown {
                name: name.to_string(),
            })
    }
}

/// Why predictions could not be scored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// There is no metric of this name.
    #[error(
        "unknown metric `{name}`, expected one of {}",
        MetricName::ALL.map(MetricName::as_str).join(", ")
    )]
    Unknown {
        /// The given name.
        name: String,
    },
    /// The metric that decides which state is the best is not one of the task's.
    #[error(
        "metric_for_best_model is {name}, which is not computed here: choose one of {}",
        computed.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ")
    )]
    NotComputed {
        /// The chosen metric.
        name: MetricName,
        /// The metrics that are computed.
        computed: Vec<MetricName>,
    },
    /// There is nothing to score.
    #[error("there are no predictions to score")]
    Empty,
    /// The numbers of predictions and targets differ.
    #[error("there are {logits} predictions for {targets} targets; each example needs both")]
    Length {
        /// The number of predictions.
        logits: usize,
        /// The number of targets.
        targets: usize,
    },
    /// A prediction that does not fit the target of its example.
    #[error("example {example} (from 0): {message}")]
    Example {
        /// The example's index.
        example: usize,
        /// What does not fit.
        message: String,
    },
    /// A prediction that is not a number, or infinite: the model has diverged.
    #[error("example {example} (from 0): the prediction is not finite; the model has diverged")]
    NotFinite {
        /// The example's index.
        example: usize,
    },
    /// A metric that is not defined for this kind of task.
    #[error("the metric {metric} is not defined for {task}; choose one of {}", suitable(.task))]
    Unsuitable {
        /// The metric.
        metric: MetricName,
        /// The kind of task.
        task: &'static str,
    },
}

const TWO_CLASSES: &str = "a classification with two classes";
const MORE_CLASSES: &str = "a classification with a number of classes other than two";
const REGRESSION: &str = "a regression";

fn suitable(task: &str) -> &'static str {
    match task {
        TWO_CLASSES => "accuracy, f1, matthews, loss",
        MORE_CLASSES => "accuracy, matthews, loss",
        _ => "rmse, pearson, spearman, loss",
    }
}

/// Checks that a metric is defined for a task with `num_labels` classes, or for a regression if `num_labels` is `None`.
///
/// # Errors
/// [`MetricError::Unsuitable`] if it is not.
pub fn check(metric: MetricName, num_labels: Option<usize>) -> Result<(), MetricError> {
    let (task, fits) = match num_labels {
        Some(2) => (
            TWO_CLASSES,
            !matches!(
                metric,
                MetricName::Pearson
                    | MetricName::Spearman
                    | MetricName::Rmse
                    | MetricName::Perplexity
            ),
        ),
        Some(_) => (
            MORE_CLASSES,
            matches!(
                metric,
                MetricName::Accuracy | MetricName::Matthews | MetricName::Loss
            ),
        ),
        None => (
            REGRESSION,
            matches!(
                metric,
                MetricName::Rmse | MetricName::Pearson | MetricName::Spearman | MetricName::Loss
            ),
        ),
    };
    if fits {
        Ok(())
    } else {
        Err(MetricError::Unsuitable { metric, task })
    }
}

/// A model's predictions for a set of examples, and the targets of the examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// The outputs of the model: logits `[examples, classes]`, or values `[examples, 1]` for a regression.
    pub logits: Vec<Vec<f32>>,
    /// The target of each example.
    pub targets: Vec<Target>,
    /// The class whose F1 is computed; 1 by default.
    pub positive_class: usize,
}

impl Default for Predictions {
    fn default() -> Self {
        Self {
            logits: Vec::new(),
            targets: Vec::new(),
            positive_class: 1,
        }
    }
}

/// Metrics and their values, in the order in which they were requested. The JSON form is an object from names to values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores(Vec<(MetricName, f64)>);

impl Scores {
    /// The value of a metric, or `None` if it was not computed.
    pub fn get(&self, metric: MetricName) -> Option<f64> {
        self.iter()
            .find_map(|(name, value)| (name == metric).then_some(value))
    }

    /// Sets the value of a metric, and replaces an earlier one.
    pub fn set(&mut self, metric: MetricName, value: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == metric) {
            Some((_, old)) => *old = value,
            None => self.0.push((metric, value)),
        }
    }

    /// The metrics and their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (MetricName, f64)> + '_ {
        self.0.iter().copied()
    }
}

/// Writes the scores in the form `accuracy 0.8725, f1 0.9091`.
impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {value:.4}")?;
        }
        Ok(())
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Scores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from metrics to numbers")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Scores, M::Error> {
                let mut scores = Scores::default();
                while let Some((name, value)) = map.next_entry()? {
                    scores.set(name, value);
                }
                Ok(scores)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// Computes each of the metrics `names` for the predictions.
///
/// The predicted class is the one with the largest logit; if several are equal, it is the first of them. A metric that
/// is undefined for the predictions is 0: F1 if its class is neither predicted nor a target, Matthews' coefficient if
/// all predictions or all targets are of one class (both as in scikit-learn), and a correlation if all predictions or
/// all targets are equal. For such a correlation SciPy returns NaN, which JSON cannot represent and which cannot be
/// compared with the score of the best checkpoint.
///
/// # Errors
/// [`MetricError`] if there are no predictions, if predictions do not fit their targets or are not finite, or if a
/// metric is not defined for the task.
pub fn score(names: &[MetricName], predictions: &Predictions) -> Result<Scores, MetricError> {
    let Predictions {
        logits,
        targets,
        positive_class,
    } = predictions;
    if logits.len() != targets.len() {
        return Err(MetricError::Length {
            logits: logits.len(),
            targets: targets.len(),
        });
    }
    let (Some(width), Some(first)) = (logits.first().map(Vec::len), targets.first()) else {
        return Err(MetricError::Empty);
    };
    for (example, row) in logits.iter().enumerate() {
        if row.iter().any(|value| !value.is_finite()) {
            return Err(MetricError::NotFinite { example });
        }
    }
    match first {
        Target::Class(_) => {
            let classes = Classes::of(logits, targets, width)?;
            scores(names, Some(width), |name| match name {
                MetricName::Accuracy => classes.accuracy(),
                MetricName::F1 => classes.f1(*positive_class),
                MetricName::Matthews => classes.matthews(),
                _ => cross_entropy(logits, &classes.targets),
            })
        }
        Target::Value(_) => {
            let (x, y) = values(logits, targets)?;
            let squared_error = || mean(x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)), x.len());
            scores(names, None, |name| match name {
                MetricName::Pearson => pearson(&x, &y),
                MetricName::Spearman => pearson(&ranks(&x), &ranks(&y)),
                MetricName::Rmse => squared_error().sqrt(),
                _ => squared_error(),
            })
        }
    }
}

fn scores(
    names: &[MetricName],
    num_labels: Option<usize>,
    value: impl Fn(MetricName) -> f64,
) -> Result<Scores, MetricError> {
    let mut scores = Scores::default();
    for &name in names {
        check(name, num_labels)?;
        scores.set(name, value(name));
    }
    Ok(scores)
}

fn misfit<T>(example: usize, message: String) -> Result<T, MetricError> {
    Err(MetricError::Example { example, message })
}

/// Predicted and true classes.
struct Classes {
    num_labels: usize,
    predicted: Vec<usize>,
    targets: Vec<usize>,
}

impl Classes {
    fn of(logits: &[Vec<f32>], targets: &[Target], width: usize) -> Result<Self, MetricError> {
        let mut classes = Self {
            num_labels: width,
            predicted: Vec::with_capacity(logits.len()),
            targets: Vec::with_capacity(logits.len()),
        };
        for (example, (row, target)) in logits.iter().zip(targets).enumerate() {
            if row.len() != width {
                let message = format!(
                    "there are {} logits, but the first example has {width}",
                    row.len()
                );
                return misfit(example, message);
            }
            match *target {
                Target::Class(class) if class < width => classes.targets.push(class),
                Target::Class(class) => {
                    let message =
                        format!("the target is class {class} (from 0) of only {width} classes");
                    return misfit(example, message);
                }
                Target::Value(_) => {
                    return misfit(
                        example,
                        "the target is a value, but the first example has a class".into(),
                    );
                }
            }
            let mut best = (0, f32::NEG_INFINITY);
            for (class, &logit) in row.iter().enumerate() {
                if logit > best.1 {
                    best = (class, logit);
                }
            }
            classes.predicted.push(best.0);
        }
        Ok(classes)
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let targets = self.targets.iter().copied();
        self.predicted.iter().copied().zip(targets)
    }

    fn count(&self, of: impl Fn(usize, usize) -> bool) -> f64 {
        self.pairs().filter(|&(p, t)| of(p, t)).count() as f64
    }

    fn accuracy(&self) -> f64 {
        self.count(|p, t| p == t) / self.targets.len() as f64
    }

    fn f1(&self, class: usize) -> f64 {
        let found = self.count(|p, t| p == class && t == class);
        let wrong = self.count(|p, t| (p == class) != (t == class));
        if found == 0.0 {
            0.0
        } else {
            2.0 * found / (2.0 * found + wrong)
        }
    }

    /// Gorodkin's generalization to more than two classes (Comput. Biol. Chem. 28, 2004), as in scikit-learn.
    fn matthews(&self) -> f64 {
        let mut sums = vec![(0.0, 0.0); self.num_labels];
        for (predicted, target) in self.pairs() {
            if let Some((count, _)) = sums.get_mut(predicted) {
                *count += 1.0;
            }
            if let Some((_, count)) = sums.get_mut(target) {
                *count += 1.0;
            }
        }
        let total = self.targets.len() as f64;
        let (mut both, mut predicted, mut target) = (0.0, 0.0, 0.0);
        for (p, t) in sums {
            both += p * t;
            predicted += p * p;
            target += t * t;
        }
        let spread = (total * total - predicted) * (total * total - target);
        if spread == 0.0 {
            return 0.0;
        }
        (self.count(|p, t| p == t) * total - both) / spread.sqrt()
    }
}

fn cross_entropy(logits: &[Vec<f32>], targets: &[usize]) -> f64 {
    let losses = logits.iter().zip(targets).map(|(row, &target)| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&z| f64::from(z - largest).exp()).sum();
        let right = row.get(target).copied().unwrap_or(f32::NEG_INFINITY);
        sum.ln() - f64::from(right - largest)
    });
    mean(losses, targets.len())
}

fn values(logits: &[Vec<f32>], targets: &[Target]) -> Result<(Vec<f64>, Vec<f64>), MetricError> {
    let mut x = Vec::with_capacity(logits.len());
    let mut y = Vec::with_capacity(logits.len());
    for (example, (row, target)) in logits.iter().zip(targets).enumerate() {
        let &[value] = row.as_slice() else {
            return misfit(
                example,
                format!(
                    "there are {} outputs, but a regression needs one",
                    row.len()
                ),
            );
        };
        x.push(f64::from(value));
        match *target {
            Target::Value(target) if target.is_finite() => y.push(f64::from(target)),
            Target::Value(_) => return misfit(example, "the target is not finite".into()),
            Target::Class(_) => {
                return misfit(
                    example,
                    "the target is a class, but the first example has a value".into(),
                );
            }
        }
    }
    Ok((x, y))
}

fn mean(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    values.sum::<f64>() / count as f64
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    // This checks the values and not the variance, because rounding can make the variance of equal values slightly
    // larger than zero.
    let constant = |values: &[f64]| {
        values
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a == b))
    };
    if constant(x) || constant(y) {
        return 0.0;
    }
    let center = |values: &[f64]| {
        let mean = mean(values.iter().copied(), values.len());
        let centered: Vec<f64> = values.iter().map(|value| value - mean).collect();
        let norm = centered
            .iter()
            .map(|value| value * value)
            .sum::<f64>()
            .sqrt();
        (centered, norm)
    };
    let ((x, x_norm), (y, y_norm)) = (center(x), center(y));
    if x_norm == 0.0 || y_norm == 0.0 {
        return 0.0;
    }
    let product: f64 = x
        .iter()
        .zip(&y)
        .map(|(x, y)| (x / x_norm) * (y / y_norm))
        .sum();
    product.clamp(-1.0, 1.0)
}

/// The ranks of the values, from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in sorted.chunk_by(|a, b| a.1 == b.1) {
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        for &(index, _) in equal {
            if let Some(slot) = ranks.get_mut(index) {
                *slot = rank;
            }
        }
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::MetricName::*;
    use super::*;

    fn classes(predicted: &[usize], targets: &[usize], num_labels: usize) -> Predictions {
        let logits = predicted.iter().map(|&class| {
            let mut row = vec![-0.5; num_labels];
            row[class] = 0.25;
            row
        });
        Predictions {
            logits: logits.collect(),
            targets: targets.iter().map(|&class| Target::Class(class)).collect(),
            ..Predictions::default()
        }
    }

    fn values(x: &[f32], y: &[f32]) -> Predictions {
        Predictions {
            logits: x.iter().map(|&value| vec![value]).collect(),
            targets: y.iter().map(|&value| Target::Value(value)).collect(),
            ..Predictions::default()
        }
    }

    fn one(name: MetricName, predictions: &Predictions) -> f64 {
        score(&[name], predictions).unwrap().get(name).unwrap()
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    // The expected values are those of scikit-learn and SciPy for the same arrays.
    #[test]
    fn classifications_score_as_in_scikit_learn() {
        let predicted = [1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0];
        let targets = [1, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 0];
        let two = classes(&predicted, &targets, 2);
        near(one(Accuracy, &two), 0.6666666666666666);
        near(one(F1, &two), 0.7142857142857143);
        near(one(Matthews, &two), 0.3142857142857143);
        let predicted = [0, 2, 1, 1, 0, 2, 2, 1, 0, 1];
        let targets = [0, 2, 1, 0, 0, 1, 2, 1, 2, 1];
        let three = classes(&predicted, &targets, 3);
        near(one(Accuracy, &three), 0.7);
        near(one(Matthews, &three), 0.5454545454545454);
        let rows = vec![vec![2.0, -1.0, 0.5], vec![0.0; 3], vec![-3.0, 4.0, 1.5]];
        let losses = Predictions {
            logits: rows,
            targets: [0, 2, 2].map(Target::Class).to_vec(),
            ..Predictions::default()
        };
        near(one(Loss, &losses), 1.3065518909992748);
        // The first of equal logits counts, as in NumPy's argmax.
        near(one(Accuracy, &losses), 1.0 / 3.0);
    }

    #[test]
    fn regressions_score_as_in_scipy() {
        let x = [0.5, 2.25, 2.25, 3.75, 5.0, 1.125, 4.5, 0.0];
        let y = [1.0, 2.0, 3.0, 3.0, 4.75, 0.25, 3.0, 0.5];
        let predictions = values(&x, &y);
        near(one(Pearson, &predictions), 0.9088588431920434);
        near(one(Spearman, &predictions), 0.8835852486128687);
        near(one(Loss, &predictions), 0.595703125);
        near(one(Rmse, &predictions), 0.595703125_f64.sqrt());
        let far = values(&[1_000_001.0, 1_000_002.0, 1_000_004.0], &[1.0, 2.0, 3.0]);
        near(one(Pearson, &far), 0.9819805060619655);
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    }

    #[test]
    fn an_undefined_metric_is_zero() {
        assert_eq!(one(F1, &classes(&[0, 0], &[0, 0], 2)), 0.0);
        assert_eq!(one(F1, &classes(&[0, 0, 1], &[1, 1, 0], 2)), 0.0);
        assert_eq!(one(Matthews, &classes(&[1, 1, 1], &[0, 1, 1], 2)), 0.0);
        assert_eq!(one(Matthews, &classes(&[1, 0, 1], &[1, 1, 1], 2)), 0.0);
        for (x, y) in [([0.1; 3], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], [0.1; 3])] {
            assert_eq!(one(Pearson, &values(&x, &y)), 0.0);
            assert_eq!(one(Spearman, &values(&x, &y)), 0.0);
        }
        assert_eq!(one(Pearson, &values(&[1.0], &[2.0])), 0.0);
        // Values that differ only slightly are not constant.
        near(one(Pearson, &values(&[0.0, 1e-45], &[0.0, 1.0])), 1.0);
    }

    #[test]
    fn predictions_that_do_not_fit_are_errors() {
        let error = |predictions: &Predictions| score(&[Accuracy], predictions).unwrap_err();
        assert_eq!(error(&Predictions::default()), MetricError::Empty);
        let mut two = classes(&[0, 1], &[0, 1], 2);
        two.targets.pop();
        assert_eq!(
            error(&two),
            MetricError::Length {
                logits: 2,
                targets: 1
            }
        );
        two.targets.push(Target::Class(2));
        assert!(
            error(&two).to_string().starts_with(
                "example 1 (from 0): the target is class 2 (from 0) of only 2 classes"
            )
        );
        two.targets[1] = Target::Value(0.5);
        assert!(matches!(
            error(&two),
            MetricError::Example { example: 1, .. }
        ));
        two.targets[1] = Target::Class(0);
        two.logits[1].push(0.0);
        assert!(matches!(
            error(&two),
            MetricError::Example { example: 1, .. }
        ));
        two.logits[1] = vec![0.0, f32::NAN];
        assert_eq!(error(&two), MetricError::NotFinite { example: 1 });
        let three = classes(&[0, 1], &[0, 1], 3);
        let message = score(&[F1], &three).unwrap_err().to_string();
        assert!(message.contains("accuracy, matthews, loss"), "{message}");
        assert!(score(&[Pearson], &three).is_err());
        assert!(score(&[Accuracy], &values(&[1.0], &[1.0])).is_err());
        let wide = Predictions {
            logits: vec![vec![1.0, 2.0]],
            targets: vec![Target::Value(1.0)],
            ..Predictions::default()
        };
        assert!(matches!(
            score(&[Loss], &wide),
            Err(MetricError::Example { .. })
        ));
    }

    #[test]
    fn scores_keep_their_order_and_survive_their_file() {
        let predictions = classes(&[0, 1, 1], &[0, 1, 0], 2);
        let scores = score(&[Matthews, Accuracy, F1, Loss], &predictions).unwrap();
        let json = serde_json::to_string(&scores).unwrap();
        assert!(
            json.starts_with("{\"matthews\":0.5,\"accuracy\":0.66"),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Scores>(&json).unwrap(), scores);
        assert!(
            scores
                .to_string()
                .starts_with("matthews 0.5000, accuracy 0.6667, f1 ")
        );
        for metric in MetricName::ALL {
            assert_eq!(metric.to_string().parse(), Ok(metric));
            let json = serde_json::to_string(&metric).unwrap();
            assert_eq!(json, format!("\"{metric}\""));
        }
        assert!("bleu".parse::<MetricName>().is_err());
    }

    proptest! {
        #[test]
        fn classification_metrics_keep_their_bounds(
            pairs in prop::collection::vec((0..2usize, 0..2usize), 1..60),
        ) {
            let (predicted, targets): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            let scores = score(&[Accuracy, F1, Matthews, Loss], &classes(&predicted, &targets, 2)).unwrap();
            prop_assert!((0.0..=1.0).contains(&scores.get(Accuracy).unwrap()));
            prop_assert!((0.0..=1.0).contains(&scores.get(F1).unwrap()));
            let matthews = scores.get(Matthews).unwrap();
            prop_assert!(matthews.abs() <= 1.0 + 1e-12);
            // Predicting the other class each time flips the sign.
            let other: Vec<_> = predicted.iter().map(|class| 1 - class).collect();
            let turned = one(Matthews, &classes(&other, &targets, 2));
            prop_assert!((matthews + turned).abs() < 1e-12);
            // With two classes, Matthews' coefficient is Pearson's correlation of the class indices.
            let number = |classes: &[usize]| classes.iter().map(|&class| class as f32).collect::<Vec<_>>();
            let pearson = one(Pearson, &values(&number(&predicted), &number(&targets)));
            prop_assert!((matthews - pearson).abs() < 1e-9, "{} {}", matthews, pearson);
        }

        #[test]
        fn pearson_ignores_linear_maps_and_spearman_monotonic_ones(
            pairs in prop::collection::vec((-50..50i32, -50..50i32), 2..60),
        ) {
            let (x, y): (Vec<_>, Vec<_>) = pairs.iter().map(|&(x, y)| (x as f32, y as f32)).unzip();
            let pearson = one(Pearson, &values(&x, &y));
            let spearman = one(Spearman, &values(&x, &y));
            prop_assert!(pearson.abs() <= 1.0 && spearman.abs() <= 1.0);
            let moved: Vec<_> = x.iter().map(|x| 4.0 * x - 3.0).collect();
            prop_assert!((one(Pearson, &values(&moved, &y)) - pearson).abs() < 1e-9);
            let cubed: Vec<_> = x.iter().map(|x| x * x * x).collect();
            prop_assert!((one(Spearman, &values(&cubed, &y)) - spearman).abs() < 1e-9);
            prop_assert!((one(Pearson, &values(&y, &x)) - pearson).abs() < 1e-9);
        }

        #[test]
        fn no_predictions_make_it_panic(
            rows in prop::collection::vec(prop::collection::vec(any::<f32>(), 0..4), 0..6),
            targets in prop::collection::vec(
                prop_oneof![any::<usize>().prop_map(Target::Class), (0..4usize).prop_map(Target::Class),
                            any::<f32>().prop_map(Target::Value)], 0..6),
        ) {
            let predictions = Predictions { logits: rows, targets, ..Predictions::default() };
            for metric in MetricName::ALL {
                if let Ok(scores) = score(&[metric], &predictions) {
                    prop_assert!(scores.get(metric).is_some_and(|value| !value.is_nan()));
                }
            }
        }
    }
}
