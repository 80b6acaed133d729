//! Maps the outputs of a trained classification head to the classes of the data.
//!
//! `id2label` in the model's `config.json` names the outputs; the data has its own classes in its own order. They are
//! matched by name. Order is used only if the outputs have no real names (`LABEL_0`, ...) or the classes are numbers.

use std::collections::BTreeSet;
use std::path::Path;

use mtlora_models::messages::shown;

use crate::data::error::{DataError, listed};
use crate::data::example::{Example, Objective, Target};
use crate::metrics::labels::{self as metrics, MetricName};
use crate::tasks::task::{Task, TaskData, TextColumns};

/// The prefix of the default names that `transformers` gives to outputs.
const UNNAMED: &str = "LABEL_";

/// How classes were matched to a head's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MatchedBy {
    /// By their names, ignoring case.
    Names,
    /// By their order: the head's outputs have no names but `LABEL_0` and so on.
    Order,
    /// By their numbers: the classes are called 0, 1, ..., which are the numbers of the outputs.
    Numbers,
}

/// The head's outputs, named by the data's classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatchedLabels {
    /// The name of each output: the class that it was matched to, or else the model's own name.
    pub labels: Vec<String>,
    /// How they were matched.
    pub by: MatchedBy,
}

impl MatchedLabels {
    /// A note for the user about the match, or `None` if every output was matched to a class by name.
    pub fn note(&self, model: &[String], classes: &[String]) -> Option<String> {
        let pairs = || {
            let pairs = model.iter().zip(&self.labels);
            let pairs: Vec<String> = pairs.map(|(from, to)| format!("{from} = {to}")).collect();
            pairs.join(", ")
        };
        match self.by {
            MatchedBy::Order => Some(format!(
                "the outputs of the model's classification head have no names; they are taken in the order of the \
                 data's classes: {}",
                pairs()
            )),
            MatchedBy::Numbers => Some(format!(
                "the data's classes are numbers, which are taken as the numbers of the model's labels: {}",
                pairs()
            )),
            MatchedBy::Names => {
                let mut unused = self.labels.clone();
                unused.retain(|label| !classes.contains(label));
                (!unused.is_empty()).then(|| {
                    format!(
                        "the model's classification head also has outputs for classes that are not in the data: {}",
                        listed(&unused)
                    )
                })
            }
        }
    }
}

/// Why classes cannot be matched to a head's outputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Not every class has an output of the same name.
    #[error(
        "the labels of its head are {}, but the classes of the data are {}, and their names do not match. Give the \
         data's classes in the order of the head's outputs (--labels A,B,...), rename them in the data, or train a new \
         output layer (train --fresh-head)",
        listed(.model),
        listed(.classes)
    )]
    Names {
        /// The names of the head's outputs, in their order.
        model: Vec<String>,
        /// The data's classes.
        classes: Vec<String>,
    },
    /// The number of the head's outputs does not fit the number of classes.
    #[error(
        "its head has {} {} ({}), and {}: train a new output layer (train --fresh-head), or use a model that fits",
        .model.len(),
        if .model.len() == 1 { "output" } else { "outputs" },
        listed(.model),
        match .classes.as_slice() {
            [] => "a regression needs one".to_string(),
            classes => format!("the data has {} classes ({})", classes.len(), listed(classes)),
        }
    )]
    Number {
        /// The names of the head's outputs, in their order.
        model: Vec<String>,
        /// The data's classes; empty for a regression.
        classes: Vec<String>,
    },
    /// The order that was given lacks a class.
    #[error("--labels is {}, but the data also has {}; name each class of the data", listed(.given), listed(.lacking))]
    Given {
        /// The order that was given.
        given: Vec<String>,
        /// The classes that it lacks.
        lacking: Vec<String>,
    },
    /// The order that was given has a class twice, or a class without a name.
    #[error(
        "--labels {}; name each class once",
        if .name.is_empty() { "has an empty name".to_string() } else { format!("names {} twice", shown(.name)) }
    )]
    Repeated {
        /// The name that was given twice, or an empty one.
        name: String,
    },
    /// Classes were named for a task that predicts numbers.
    #[error("--labels names classes, but the task predicts a number; leave it out")]
    Regression,
}

/// Matches the data's `classes` to the outputs of a head, whose names in the model are `model`.
///
/// # Errors
/// If neither names, numbers nor the order decide the match, because it is never guessed.
pub(crate) fn match_labels(
    model: &[String],
    classes: &[String],
) -> Result<MatchedLabels, LabelError> {
    if let Some(labels) = by_name(model, classes) {
        let by = MatchedBy::Names;
        return Ok(MatchedLabels { labels, by });
    }
    if let Some(labels) = by_number(model, classes) {
        let by = MatchedBy::Numbers;
        return Ok(MatchedLabels { labels, by });
    }
    let (model_names, names) = (model.to_vec(), classes.to_vec());
    if is_unnamed(model) && model.len() == classes.len() {
        let by = MatchedBy::Order;
        return Ok(MatchedLabels { labels: names, by });
    }
    if model.len() == classes.len() {
        return Err(LabelError::Names {
            model: model_names,
            classes: names,
        });
    }
    Err(LabelError::Number {
        model: model_names,
        classes: names,
    })
}

/// Whether a model's outputs have no names of their own.
pub fn is_unnamed(model: &[String]) -> bool {
    let mut names = model.iter().enumerate();
    names.all(|(index, name)| name.eq_ignore_ascii_case(&format!("{UNNAMED}{index}")))
}

/// The outputs' names, if each class matches one output by name: in the same case, or else ignoring case.
fn by_name(model: &[String], classes: &[String]) -> Option<Vec<String>> {
    let exact = |name: &String| name.trim().to_string();
    let folded = |name: &String| name.trim().to_lowercase();
    matched(model, classes, exact).or_else(|| matched(model, classes, folded))
}

fn matched(
    model: &[String],
    classes: &[String],
    key: impl Fn(&String) -> String,
) -> Option<Vec<String>> {
    let keys: Vec<String> = model.iter().map(&key).collect();
    let distinct: BTreeSet<&String> = keys.iter().collect();
    if distinct.len() < keys.len() {
        return None;
    }
    let mut labels = model.to_vec();
    let mut taken = BTreeSet::new();
    for class in classes {
        let at = keys.iter().position(|known| *known == key(class))?;
        if !taken.insert(at) {
            return None;
        }
        labels[at].clone_from(class);
    }
    Some(labels)
}

/// The outputs' names, if each class is the number of an output: the classes count from 0, and no output has a real
/// name with a number in it, such as `1 star`.
fn by_number(model: &[String], classes: &[String]) -> Option<Vec<String>> {
    let numbered = |name: &String| name.contains(|character: char| character.is_ascii_digit());
    let counts_from_0 = classes.iter().any(|class| class.trim() == "0");
    if !counts_from_0 || !is_unnamed(model) && model.iter().any(numbered) {
        return None;
    }
    let mut labels = model.to_vec();
    for class in classes {
        let number: usize = class.trim().parse().ok()?;
        // Output numbers are not spelled `+1` or `01`.
        if class.trim() != number.to_string() {
            return None;
        }
        labels.get_mut(number)?.clone_from(class);
    }
    // The remaining names of the model must differ from the classes.
    let distinct: BTreeSet<&String> = labels.iter().collect();
    (distinct.len() == labels.len()).then_some(labels)
}

/// The order of outputs that a user gave, checked against the data's `classes`.
///
/// # Errors
/// [`LabelError::Given`] if a class is missing, [`LabelError::Repeated`] if one is named twice.
pub(crate) fn checked_order(
    given: &[String],
    classes: &[String],
) -> Result<Vec<String>, LabelError> {
    let given: Vec<String> = given.iter().map(|name| name.trim().to_string()).collect();
    let mut distinct = BTreeSet::new();
    let wrong = given
        .iter()
        .find(|name| name.is_empty() || !distinct.insert(*name));
    if let Some(name) = wrong {
        return Err(LabelError::Repeated { name: name.clone() });
    }
    let lacking = classes.iter().filter(|class| !given.contains(class));
    let lacking: Vec<String> = lacking.cloned().collect();
    if lacking.is_empty() {
        Ok(given)
    } else {
        Err(LabelError::Given { given, lacking })
    }
}

/// Returns `task` with its classes in the order of the head's outputs, and a note for the user on how they were matched.
/// `head` holds the names of the outputs, or is `None` for a new head. `given` is an explicit order from the user.
///
/// # Errors
/// If the head has too few or too many outputs, if the classes cannot be matched to its outputs, or if `given` does not
/// fit the classes.
pub fn align_to_head(
    task: Box<dyn Task>,
    head: Option<&[String]>,
    given: Option<&[String]>,
) -> Result<(Box<dyn Task>, Option<String>), LabelError> {
    let classes = task.objective().labels().to_vec();
    let number = |model: &[String]| LabelError::Number {
        model: model.to_vec(),
        classes: classes.clone(),
    };
    if matches!(task.objective(), Objective::Regression) {
        if given.is_some() {
            return Err(LabelError::Regression);
        }
        return match head {
            Some(model) if model.len() != 1 => Err(number(model)),
            _ => Ok((task, None)),
        };
    }
    match (given, head) {
        (Some(given), head) => {
            let labels = checked_order(given, &classes)?;
            if let Some(model) = head.filter(|model| model.len() != labels.len()) {
                return Err(number(model));
            }
            Ok((with_label_order(task, &labels)?, None))
        }
        (None, None) => Ok((task, None)),
        (None, Some(model)) => {
            let matched = match_labels(model, &classes)?;
            let note = matched.note(model, &classes);
            Ok((with_label_order(task, &matched.labels)?, note))
        }
    }
}

/// Returns `task` with its classes in the order of `labels`, which may contain additional ones.
///
/// # Errors
/// [`LabelError::Given`] if `labels` lacks a class of the task, [`LabelError::Regression`] if the task has no classes.
pub fn with_label_order(
    task: Box<dyn Task>,
    labels: &[String],
) -> Result<Box<dyn Task>, LabelError> {
    let Objective::Classification { labels: classes } = task.objective() else {
        return Err(LabelError::Regression);
    };
    if classes == labels {
        return Ok(task);
    }
    let place = |class: &String| labels.iter().position(|label| label == class);
    let outputs: Option<Vec<usize>> = classes.iter().map(place).collect();
    let Some(outputs) = outputs else {
        let lacking = classes.iter().filter(|class| !labels.contains(class));
        return Err(LabelError::Given {
            given: labels.to_vec(),
            lacking: lacking.cloned().collect(),
        });
    };
    let fits = |metric: &MetricName| metrics::check(*metric, Some(labels.len())).is_ok();
    let mut metrics: Vec<MetricName> = task.metric_names().to_vec();
    metrics.retain(fits);
    if metrics.is_empty() {
        metrics.push(MetricName::Accuracy);
    }
    Ok(Box::new(Reordered {
        objective: Objective::Classification {
            labels: labels.to_vec(),
        },
        task,
        outputs,
        metrics,
    }))
}

/// A task whose targets are translated to the output numbers of a head with another label order.
struct Reordered {
    task: Box<dyn Task>,
    objective: Objective,
    /// The output of each class of the task.
    outputs: Vec<usize>,
    metrics: Vec<MetricName>,
}

impl Reordered {
    fn target(&self, target: Target) -> Target {
        match target {
            Target::Class(class) => {
                Target::Class(self.outputs.get(class).copied().unwrap_or(class))
            }
            Target::Value(value) => Target::Value(value),
        }
    }
}

impl TaskData for Reordered {
    type Item = Example;

    fn name(&self) -> &str {
        self.task.name()
    }

    fn read(&self, data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
        self.read_noting(data, split, &mut |_| ())
    }

    fn read_noting(
        &self,
        data: &Path,
        split: &str,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<Example>, DataError> {
        let mut examples = self.task.read_noting(data, split, note)?;
        for example in &mut examples {
            example.target = example.target.map(|target| self.target(target));
        }
        Ok(examples)
    }

    fn describe(&self) -> &str {
        self.task.describe()
    }

    fn train_split(&self) -> &str {
        self.task.train_split()
    }

    fn dev_split(&self) -> &str {
        self.task.dev_split()
    }

    fn splits(&self) -> Vec<&str> {
        self.task.splits()
    }
}

impl Task for Reordered {
    fn objective(&self) -> &Objective {
        &self.objective
    }

    fn metric_names(&self) -> &[MetricName] {
        &self.metrics
    }

    fn positive_class(&self) -> usize {
        let positive = self.task.positive_class();
        self.outputs.get(positive).copied().unwrap_or(positive)
    }

    fn text_columns(&self) -> Vec<TextColumns<'_>> {
        self.task.text_columns()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn matched(model: &[&str], classes: &[&str]) -> Result<(Vec<String>, MatchedBy), LabelError> {
        let found = match_labels(&names(model), &names(classes))?;
        Ok((found.labels, found.by))
    }

    /// The expected matches are those of the model's `config.label2id` in `transformers`, if the classes are its keys.
    #[test]
    fn classes_are_matched_to_outputs_by_name_and_otherwise_by_number() {
        use MatchedBy::{Names, Numbers, Order};
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], MatchedBy);
        let cases: [Case<'_>; 12] = [
            (
                &["pos", "neg", "neu"],
                &["neg", "neu", "pos"],
                &["pos", "neg", "neu"],
                Names,
            ),
            // roberta-large-mnli's config.json, and the classes of GLUE's MNLI.
            (
                &["CONTRADICTION", "NEUTRAL", "ENTAILMENT"],
                &["entailment", "neutral", "contradiction"],
                &["contradiction", "neutral", "entailment"],
                Names,
            ),
            (
                &["Négatif", "POSITIF"],
                &["négatif", "positif"],
                &["négatif", "positif"],
                Names,
            ),
            // Exact names take precedence over names in another case.
            (&["a", "A"], &["A", "a"], &["a", "A"], Names),
            // The head has a class that the data lacks.
            (
                &["neg", "neu", "pos"],
                &["pos", "neg"],
                &["neg", "neu", "pos"],
                Names,
            ),
            (
                &["NEG", "NEU", "POS"],
                &["pos", "neg"],
                &["neg", "NEU", "pos"],
                Names,
            ),
            (
                &["LABEL_0", "LABEL_1"],
                &["bad", "good"],
                &["bad", "good"],
                Order,
            ),
            (
                &["label_0", "label_1"],
                &["bad", "good"],
                &["bad", "good"],
                Order,
            ),
            (
                &["LABEL_0", "LABEL_1"],
                &["LABEL_1", "LABEL_0"],
                &["LABEL_0", "LABEL_1"],
                Names,
            ),
            (&["neg", "pos"], &["0", "1"], &["0", "1"], Numbers),
            (&["LABEL_0", "LABEL_1"], &["1", "2"], &["1", "2"], Order),
            (
                &["neg", "neu", "pos"],
                &["0", "2"],
                &["0", "neu", "2"],
                Numbers,
            ),
        ];
        for (model, classes, labels, by) in cases {
            assert_eq!(
                matched(model, classes),
                Ok((names(labels), by)),
                "{model:?} {classes:?}"
            );
        }
    }

    #[test]
    fn ambiguous_matches_are_not_guessed() {
        let unlike: [(&[&str], &[&str]); 8] = [
            (&["neg", "pos"], &["bad", "good"]),
            // Ratings count from 1, the outputs from 0.
            (&["1 star", "2 stars"], &["1", "2"]),
            // Two classes would share an output.
            (&["yes", "no"], &["Yes", "yes"]),
            // These are not in order, so they are not the numbers of outputs.
            (&["LABEL_1", "LABEL_0"], &["bad", "good"]),
            (&["neg", "pos"], &["00", "1"]),
            (&["neg", "pos"], &["1", "2"]),
            (&["1", "2"], &["0", "1"]),
            (&["LABEL_1", "LABEL_0"], &["0", "1"]),
        ];
        for (model, classes) in unlike {
            let error = matched(model, classes).unwrap_err();
            assert!(
                matches!(error, LabelError::Names { .. }),
                "{model:?} {classes:?}: {error}"
            );
            assert!(error.to_string().contains("--labels"), "{error}");
        }
        let numbers: [(&[&str], &[&str]); 6] = [
            (&["pos", "neg", "neu"], &["down", "up"]),
            (
                &["CONTRADICTION", "NEUTRAL", "ENTAILMENT"],
                &["entailment", "not_entailment"],
            ),
            (&["LABEL_0", "LABEL_1"], &["a", "b", "c"]),
            (&["LABEL_0", "LABEL_1", "LABEL_2"], &["a", "b"]),
            // The data lacks some of the ratings.
            (&["1 star", "2 stars", "3 stars"], &["1", "2"]),
            (&["neg", "neu", "pos"], &["1", "2"]),
        ];
        for (model, classes) in numbers {
            let error = matched(model, classes).unwrap_err();
            assert!(
                matches!(error, LabelError::Number { .. }),
                "{model:?} {classes:?}: {error}"
            );
            assert!(error.to_string().contains("--fresh-head"), "{error}");
        }
    }

    #[test]
    fn matches_that_are_not_by_name_are_noted() {
        let note = |model: &[&str], classes: &[&str]| {
            let (model, classes) = (names(model), names(classes));
            match_labels(&model, &classes)
                .unwrap()
                .note(&model, &classes)
        };
        assert_eq!(note(&["NEG", "POS"], &["neg", "pos"]), None);
        let order = note(&["LABEL_0", "LABEL_1"], &["bad", "good"]).unwrap();
        assert!(order.ends_with("LABEL_0 = bad, LABEL_1 = good"), "{order}");
        let numbers = note(&["neg", "pos"], &["0", "1"]).unwrap();
        assert!(numbers.ends_with("neg = 0, pos = 1"), "{numbers}");
        let more = note(&["neg", "neu", "pos"], &["pos", "neg"]).unwrap();
        assert!(more.ends_with("are not in the data: `neu`"), "{more}");
    }

    struct Two(Objective);

    impl TaskData for Two {
        type Item = Example;

        fn name(&self) -> &str {
            "two"
        }

        fn read(&self, _: &Path, _: &str) -> Result<Vec<Example>, DataError> {
            let example = |class| Example {
                text: "x".into(),
                pair: None,
                target: Some(Target::Class(class)),
            };
            Ok(vec![example(0), example(1)])
        }
    }

    impl Task for Two {
        fn objective(&self) -> &Objective {
            &self.0
        }

        fn metric_names(&self) -> &[MetricName] {
            &[MetricName::F1, MetricName::Accuracy]
        }
    }

    fn two() -> Box<dyn Task> {
        Box::new(Two(Objective::Classification {
            labels: names(&["no", "yes"]),
        }))
    }

    #[test]
    fn targets_and_f1_follow_the_outputs() {
        let head = names(&["YES", "NO"]);
        let (task, note) = align_to_head(two(), Some(&head), None).unwrap();
        assert_eq!(note, None);
        assert_eq!(task.objective().labels(), ["yes", "no"]);
        let classes = |task: &dyn Task| {
            let examples = task.read(Path::new(""), "train").unwrap();
            examples
                .into_iter()
                .map(|one| one.target)
                .collect::<Vec<_>>()
        };
        let expected = [1, 0].map(|class| Some(Target::Class(class)));
        assert_eq!(classes(task.as_ref()), expected);
        // F1 is still that of `yes`.
        assert_eq!(task.positive_class(), 0);
        assert_eq!(task.metric_names(), [MetricName::F1, MetricName::Accuracy]);

        // F1 is not defined with a third output.
        let head = names(&["maybe", "yes", "no"]);
        let (task, note) = align_to_head(two(), Some(&head), None).unwrap();
        assert!(note.unwrap().contains("`maybe`"));
        assert_eq!(
            classes(task.as_ref()),
            [2, 1].map(|class| Some(Target::Class(class)))
        );
        assert_eq!(task.metric_names(), [MetricName::Accuracy]);
    }

    #[test]
    fn a_given_order_wins_and_is_checked() {
        let head = names(&["good", "bad"]);
        let given = |labels: &[&str]| {
            let labels = names(labels);
            let task = align_to_head(two(), Some(&head), Some(&labels));
            task.map(|(task, _)| task.objective().labels().to_vec())
        };
        assert!(align_to_head(two(), Some(&head), None).is_err());
        assert_eq!(given(&["yes", " no"]).unwrap(), ["yes", "no"]);
        assert_eq!(given(&["no", "yes"]).unwrap(), ["no", "yes"]);
        assert!(matches!(
            given(&["yes", "x"]),
            Err(LabelError::Given { .. })
        ));
        assert!(matches!(
            given(&["yes", "yes"]),
            Err(LabelError::Repeated { .. })
        ));
        assert!(matches!(
            given(&["yes", ""]),
            Err(LabelError::Repeated { .. })
        ));
        let message = |labels: &[&str]| given(labels).unwrap_err().to_string();
        assert!(message(&["no", "yes", "yes"]).starts_with("--labels names `yes` twice;"));
        assert!(message(&["yes", ""]).starts_with("--labels has an empty name;"));
        assert!(matches!(
            given(&["yes", "no", "x"]),
            Err(LabelError::Number { .. })
        ));
        // A new head takes any order.
        let labels = names(&["yes", "no"]);
        let (task, _) = align_to_head(two(), None, Some(&labels)).unwrap();
        assert_eq!(task.objective().labels(), labels);
    }

    #[test]
    fn a_regression_needs_one_output() {
        let regression = || -> Box<dyn Task> { Box::new(Two(Objective::Regression)) };
        assert!(align_to_head(regression(), Some(&names(&["LABEL_0"])), None).is_ok());
        assert!(align_to_head(regression(), None, None).is_ok());
        let error = align_to_head(regression(), Some(&names(&["a", "b"])), None)
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("a regression needs one"),
            "{error}"
        );
        let error = align_to_head(regression(), None, Some(&names(&["a"])))
            .err()
            .unwrap();
        assert_eq!(error, LabelError::Regression);
    }
}
