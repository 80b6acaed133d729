//! A task from the user's own files: CSV, TSV or JSONL with one or two columns of text and a class or a number.
//!
//! | ending   | format                                                                                          |
//! |----------|-------------------------------------------------------------------------------------------------|
//! | `.csv`   | RFC 4180 with a header: cells may be quoted and may then contain commas and line breaks         |
//! | `.tsv`   | tabs, with a header; each line is a row, and quotation marks have no special meaning            |
//! | `.jsonl` | one JSON object on each line, whose keys are the columns                                        |
//!
//! Files are UTF-8, or UTF-16 with a byte order mark. Empty lines are ignored. Texts are used as they are; white space
//! around labels, numbers and the names of columns does not matter.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mtlora_models::messages::shown;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::data::error::{DataError, listed};
use crate::data::example::{Example, Objective, Target};
use crate::data::rows;
use crate::data::table_file::{self, RawRow};
use crate::metrics::labels::{self as metrics, MetricName};
use crate::tasks::task::{Task, TaskData, TextColumns};

const TRAIN: &str = "train";
const DEV: &str = "dev";

/// The meaning of a table's columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableConfig {
    /// The column with the text; `text` by default.
    pub text: String,
    /// The column with the second text of a pair; none by default.
    pub pair: Option<String>,
    /// The column with the class or the number; `label` by default.
    pub label: String,
    /// Whether `label` holds numbers to predict instead of classes; false by default.
    pub regression: bool,
    /// The classes, in the order of the head's outputs. By default they are the classes of the train split, in numerical
    /// order if all of them are numbers, and otherwise in alphabetical order.
    pub labels: Option<Vec<String>>,
    /// The class whose F1 is computed; the second one by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positive: Option<String>,
    /// The reported metrics, the most important first. The default is accuracy, F1 and Matthews' coefficient for two
    /// classes, accuracy and Matthews' coefficient for more classes, and both correlations for numbers.
    pub metrics: Option<Vec<MetricName>>,
    /// The files of splits, relative to the data folder. By default a split is the file of its name: `train.csv`, ...
    pub files: BTreeMap<String, PathBuf>,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            text: "text".into(),
            pair: None,
            label: "label".into(),
            regression: false,
            labels: None,
            positive: None,
            metrics: None,
            files: BTreeMap::new(),
        }
    }
}

impl TableConfig {
    /// These settings with the classes of `task`. A table's task that is opened with them needs no train split.
    pub fn with_classes_of(mut self, task: &dyn Task) -> Self {
        if let Objective::Classification { labels } = task.objective() {
            let positive = task.positive_class();
            self.positive = if positive == 1 {
                None
            } else {
                labels.get(positive).cloned()
            };
            self.labels = Some(labels.clone());
        }
        self
    }
}

/// A task whose examples are the rows of a table.
#[derive(Clone, Debug)]
pub struct TableTask {
    name: String,
    config: TableConfig,
    objective: Objective,
    positive_class: usize,
    metrics: Vec<MetricName>,
}

impl TableTask {
    /// The name on the command line of the task with the user's own table.
    pub const NAME: &'static str = "table";

    /// Opens the task in the folder `data` under the name `name`. Reads the train split if the classes have to be
    /// collected from it.
    ///
    /// # Errors
    /// [`DataError::Setting`] if settings contradict each other, and the errors of reading the train split.
    pub fn open(name: &str, config: TableConfig, data: &Path) -> Result<Self, DataError> {
        distinct_columns(&config)?;
        let objective = match (&config.labels, config.regression) {
            (Some(_), true) => {
                let message = "a regression has no classes; leave out `labels` or `regression`";
                return Err(DataError::setting("labels", message));
            }
            (None, true) => Objective::Regression,
            (Some(labels), false) => Objective::Classification {
                labels: checked_classes(labels)?,
            },
            (None, false) => Objective::Classification {
                labels: collect_labels(&config, data)?,
            },
        };
        let num_labels = match &objective {
            Objective::Classification { labels } => Some(labels.len()),
            Objective::Regression => None,
        };
        let metrics = match &config.metrics {
            Some(metrics) => metrics.clone(),
            None => match num_labels {
                Some(2) => vec![MetricName::Accuracy, MetricName::F1, MetricName::Matthews],
                Some(_) => vec![MetricName::Accuracy, MetricName::Matthews],
                // Correlations do not see whether predictions have the labels' size, so they do not choose the best state.
                None => vec![MetricName::Rmse, MetricName::Pearson, MetricName::Spearman],
            },
        };
        if metrics.is_empty() {
            return Err(DataError::setting(
                "metrics",
                "is empty; name a metric, or leave the setting out",
            ));
        }
        for &metric in &metrics {
            metrics::check(metric, num_labels)
                .map_err(|error| DataError::setting("metrics", error.to_string()))?;
        }
        let positive_class = match &config.positive {
            None => 1,
            Some(positive) => {
                let at = objective
                    .labels()
                    .iter()
                    .position(|label| label == positive);
                at.ok_or_else(|| {
                    let message = format!(
                        "is {}, which is not among the classes: {}",
                        shown(positive),
                        listed(objective.labels())
                    );
                    DataError::setting("positive", message)
                })?
            }
        };
        Ok(Self {
            name: name.to_string(),
            config,
            objective,
            positive_class,
            metrics,
        })
    }

    /// The settings with the classes filled in, so that the task can be opened again without the train split.
    pub fn config(&self) -> TableConfig {
        self.config.clone().with_classes_of(self)
    }

    /// Reads the examples of any file. If `labelled` is false, the label's column may be missing and its cells may be
    /// empty.
    ///
    /// # Errors
    /// If the file cannot be read or has an invalid row; the error names the file and the line.
    pub fn read_file(&self, path: &Path, labelled: bool) -> Result<Vec<Example>, DataError> {
        let mut examples = Vec::new();
        each_row(&self.config, path, labelled, |line, row| {
            examples.push(Example {
                text: row.text,
                pair: row.pair,
                target: match row.label {
                    Some(label) => Some(self.target(path, line, &label)?),
                    None => None,
                },
            });
            Ok(())
        })?;
        Ok(examples)
    }

    fn target(&self, path: &Path, line: usize, label: &str) -> Result<Target, DataError> {
        match &self.objective {
            Objective::Regression => rows::number(label).map(Target::Value).ok_or_else(|| {
                let message = format!(
                    "{} in the column {} is not a number; correct the row or delete it",
                    shown(label),
                    shown(&self.config.label)
                );
                DataError::row(path, line, message)
            }),
            Objective::Classification { labels } => {
                match labels.iter().position(|known| known == label) {
                    Some(class) => Ok(Target::Class(class)),
                    None => Err(DataError::UnknownLabel {
                        path: path.to_path_buf(),
                        line,
                        label: label.to_string(),
                        known: labels.clone(),
                        hint: unknown_label_hint(label, labels).into(),
                    }),
                }
            }
        }
    }
}

impl TaskData for TableTask {
    type Item = Example;

    fn name(&self) -> &str {
        &self.name
    }

    /// Splits other than `train` and `dev` need no labels.
    fn read(&self, data: &Path, split: &str) -> Result<Vec<Example>, DataError> {
        let path = split_file(&self.config, data, split)?;
        self.read_file(&path, split == TRAIN || split == DEV)
    }

    fn describe(&self) -> &str {
        "your own table: CSV, TSV or JSONL"
    }

    fn splits(&self) -> Vec<&str> {
        table_file::splits(&self.config.files)
    }
}

impl Task for TableTask {
    fn objective(&self) -> &Objective {
        &self.objective
    }

    fn metric_names(&self) -> &[MetricName] {
        &self.metrics
    }

    fn positive_class(&self) -> usize {
        self.positive_class
    }

    fn text_columns(&self) -> Vec<TextColumns<'_>> {
        vec![TextColumns {
            text: &self.config.text,
            pair: self.config.pair.as_deref(),
        }]
    }
}

/// Rejects a column in two roles, because a label that is also the text needs no prediction, and a text that is paired
/// with itself adds nothing.
fn distinct_columns(config: &TableConfig) -> Result<(), DataError> {
    let roles = [
        ("label_column", Some(config.label.as_str())),
        ("text_column", Some(config.text.as_str())),
        ("pair_column", config.pair.as_deref()),
    ];
    table_file::distinct_columns(&roles)
}

/// What to do about a label that is not one of the classes.
fn unknown_label_hint(label: &str, classes: &[String]) -> &'static str {
    let numbers: Vec<f32> = classes
        .iter()
        .map(String::as_str)
        .chain([label])
        .filter_map(rows::number)
        .collect();
    let has_fractions = numbers.iter().any(|number| number.fract() != 0.0);
    if numbers.len() > classes.len() && has_fractions {
        "to predict numbers in place of classes, pass --regression"
    } else {
        "correct the row, or add rows of that class to the train split"
    }
}

fn checked_classes(labels: &[String]) -> Result<Vec<String>, DataError> {
    let mut trimmed: Vec<String> = Vec::with_capacity(labels.len());
    for label in labels.iter().map(|label| label.trim().to_string()) {
        if label.is_empty() {
            return Err(DataError::setting(
                "labels",
                "contains an empty class; name it or remove it",
            ));
        }
        if trimmed.contains(&label) {
            let message = format!("contains {} twice; remove one of them", shown(&label));
            return Err(DataError::setting("labels", message));
        }
        trimmed.push(label);
    }
    if trimmed.len() < 2 {
        let message = format!(
            "has length {}; a classification needs at least two classes",
            trimmed.len()
        );
        return Err(DataError::setting("labels", message));
    }
    Ok(trimmed)
}

fn collect_labels(config: &TableConfig, data: &Path) -> Result<Vec<String>, DataError> {
    let path = split_file(config, data, TRAIN)?;
    let mut found = BTreeSet::new();
    each_row(config, &path, true, |_, row| {
        found.extend(row.label);
        Ok(())
    })?;
    let labels = ordered_classes(found.into_iter().collect());
    if let [only] = labels.as_slice() {
        let message = format!(
            "every row of {} has the class {}; a classification needs at least two classes: add rows of another class",
            path.display(),
            shown(only)
        );
        return Err(DataError::setting("label_column", message));
    }
    Ok(labels)
}

/// Classes in the order that they have as outputs, unless the user names another: numerical order if all of them are finite numbers, else
/// alphabetical order.
pub fn ordered_classes(mut classes: Vec<String>) -> Vec<String> {
    let number = |class: &str| {
        let number = class.trim().parse::<f64>().ok();
        number.filter(|number| number.is_finite())
    };
    classes.sort();
    if classes.iter().all(|class| number(class).is_some()) {
        // The sort is stable, so two spellings of one number stay in alphabetical order.
        classes.sort_by(|a, b| match (number(a), number(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => Ordering::Equal,
        });
    }
    classes
}

/// The file of a split.
fn split_file(config: &TableConfig, data: &Path, split: &str) -> Result<PathBuf, DataError> {
    table_file::split_file(&config.files, data, split, || {
        if data.is_dir() {
            format!(
                "{split}.tsv and {split}.jsonl do not exist either; put the split {} there",
                shown(split)
            )
        } else {
            format!(
                "{} is not a folder; name the folder with the tables",
                data.display()
            )
        }
    })
}

/// The texts and the label of a row.
struct Row {
    text: String,
    pair: Option<String>,
    label: Option<String>,
}

/// Calls `each` for every row of a file, with its line. If `labelled` is true, each row must have a label.
fn each_row(
    config: &TableConfig,
    path: &Path,
    labelled: bool,
    mut each: impl FnMut(usize, Row) -> Result<(), DataError>,
) -> Result<(), DataError> {
    table_file::each_row(
        path,
        |line, header| Columns::of(config, path, line, header, labelled),
        |line, row| {
            let row = match row {
                RawRow::Cells(columns, cells) => columns.row(cells),
                RawRow::Object(object) => json_row(config, path, line, object, labelled)?,
            };
            if labelled && row.label.is_none() {
                return Err(table_file::empty_cell(path, line, &config.label));
            }
            each(line, row)
        },
    )
}

/// The indices of the columns in a header.
struct Columns {
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
}

impl Columns {
    fn of(
        config: &TableConfig,
        path: &Path,
        line: usize,
        header: &[&str],
        labelled: bool,
    ) -> Result<Self, DataError> {
        Ok(Self {
            text: rows::need_column(path, line, header, &config.text)?,
            pair: match &config.pair {
                Some(pair) => Some(rows::need_column(path, line, header, pair)?),
                None => None,
            },
            label: if labelled {
                Some(rows::need_column(path, line, header, &config.label)?)
            } else {
                rows::find_column(path, line, header, &config.label)?
            },
        })
    }

    fn row(&self, cells: &[&str]) -> Row {
        let cell = |index: usize| cells.get(index).copied().unwrap_or_default();
        Row {
            text: cell(self.text).to_string(),
            pair: self.pair.map(|index| cell(index).to_string()),
            label: self.label.and_then(|index| label(cell(index))),
        }
    }
}

/// The label in a cell, or `None` if the cell is blank.
fn label(cell: &str) -> Option<String> {
    let cell = cell.trim();
    (!cell.is_empty()).then(|| cell.to_string())
}

fn json_row(
    config: &TableConfig,
    path: &Path,
    line: usize,
    object: &Map<String, Value>,
    labelled: bool,
) -> Result<Row, DataError> {
    let text = |column: &str| table_file::text_of(path, line, object, column);
    Ok(Row {
        text: text(&config.text)?,
        pair: match &config.pair {
            Some(pair) => Some(text(pair)?),
            None => None,
        },
        label: match object.get(&config.label) {
            Some(Value::String(text)) => label(text),
            Some(Value::Number(number)) => Some(number.to_string()),
            Some(Value::Bool(bool)) => Some(bool.to_string()),
            Some(Value::Null) => None,
            Some(_) => {
                let should = "string, number or truth value";
                return Err(table_file::wrong_type(path, line, &config.label, should));
            }
            None if labelled => return Err(table_file::missing(path, line, object, &config.label)),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::data::table_file::FORMATS;

    fn folder(files: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn pairs() -> TableConfig {
        TableConfig {
            text: "a".into(),
            pair: Some("b".into()),
            label: "y".into(),
            ..TableConfig::default()
        }
    }

    fn open(config: TableConfig, data: &TempDir) -> Result<TableTask, DataError> {
        TableTask::open("mine", config, data.path())
    }

    fn example(text: &str, pair: Option<&str>, target: Target) -> Example {
        Example {
            text: text.into(),
            pair: pair.map(String::from),
            target: Some(target),
        }
    }

    #[test]
    fn a_label_with_a_fraction_leads_to_a_regression() {
        let hint = |label: &str, classes: &[&str]| {
            let classes: Vec<String> = classes.iter().map(ToString::to_string).collect();
            unknown_label_hint(label, &classes)
        };
        assert!(hint("0.7", &["0.1", "2"]).contains("--regression"));
        for (label, classes) in [("3", ["1", "2"]), ("x", ["0.1", "2"]), ("0.5", ["a", "2"])] {
            assert!(hint(label, &classes).contains("correct the row"), "{label}");
        }
    }

    #[test]
    fn the_three_formats_say_the_same() {
        let csv = "\u{feff}y, b ,a\r\n yes ,two,\"one \"\"q\"\", \"\r\n\r\nno,,x\r\n";
        let tsv = "y\tb\ta\nyes\ttwo\tone \"q\", \nno\t\tx\n";
        let jsonl = "{\"y\":\"yes\",\"b\":\"two\",\"a\":\"one \\\"q\\\", \",\"z\":[1]}\n  \n{\"a\":\"x\",\"b\":\"\",\"y\":\"no\"}";
        for (name, text) in [
            ("train.csv", csv),
            ("train.tsv", tsv),
            ("train.jsonl", jsonl),
        ] {
            let data = folder(&[(name, text.as_bytes())]);
            let task = open(pairs(), &data).unwrap();
            assert_eq!(task.objective().labels(), ["no", "yes"]);
            let expected = [
                example("one \"q\", ", Some("two"), Target::Class(1)),
                example("x", Some(""), Target::Class(0)),
            ];
            assert_eq!(task.read(data.path(), "train").unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn classes_are_collected_in_the_order_of_numbers_or_given() {
        let data = folder(&[("train.csv", b"text,label\na,10\nb,9\nc,-1\nd,9\n")]);
        let task = open(TableConfig::default(), &data).unwrap();
        assert_eq!(task.objective().labels(), ["-1", "9", "10"]);
        assert_eq!(
            task.metric_names(),
            [MetricName::Accuracy, MetricName::Matthews]
        );
        // The settings that a run saves are enough to open the task again without a train split.
        let saved = toml::to_string(&task.config()).unwrap();
        let config: TableConfig = toml::from_str(&saved).unwrap();
        let elsewhere = folder(&[("dev.csv", b"text,label\na,10\n")]);
        let again = open(config, &elsewhere).unwrap();
        assert_eq!(again.objective(), task.objective());
        assert_eq!(
            again.read(elsewhere.path(), "dev").unwrap()[0].target,
            Some(Target::Class(2))
        );

        let json = folder(&[(
            "train.jsonl",
            b"{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":true}\n{\"text\":\"c\",\"label\":\"x\"}\n",
        )]);
        let task = open(TableConfig::default(), &json).unwrap();
        assert_eq!(task.objective().labels(), ["1", "true", "x"]);

        let labels = |labels: &[&str]| TableConfig {
            labels: Some(labels.iter().map(|label| label.to_string()).collect()),
            ..TableConfig::default()
        };
        let task = open(labels(&["9", "10", " -1 "]), &data).unwrap();
        assert_eq!(task.objective().labels(), ["9", "10", "-1"]);
        for wrong in [&["9"][..], &["9", "9 "], &["9", ""], &[]] {
            let error = open(labels(wrong), &data).unwrap_err();
            assert!(error.to_string().starts_with("setting `labels`"), "{error}");
        }
        let task = open(labels(&["9", "10"]), &data).unwrap();
        let error = task.read(data.path(), "train").unwrap_err().to_string();
        assert!(
            error.contains("train.csv:4: unknown label `-1`, expected one of `9`, `10`"),
            "{error}"
        );
    }

    #[test]
    fn a_regression_reads_numbers() {
        let config = TableConfig {
            regression: true,
            ..TableConfig::default()
        };
        let data = folder(&[
            ("train.csv", b"text,label\na, 1.5\nb,-2e1\n"),
            (
                "dev.jsonl",
                b"{\"text\":\"a\",\"label\":0.5}\n{\"text\":\"b\",\"label\":\"7\"}\n",
            ),
            ("test.tsv", b"text\tlabel\na\t1\nb\t1,5\n"),
        ]);
        let task = open(config.clone(), &data).unwrap();
        let targets = |split: &str| -> Vec<_> {
            let examples = task.read(data.path(), split).unwrap();
            examples
                .into_iter()
                .map(|example| example.target.unwrap())
                .collect()
        };
        assert_eq!(targets("train"), [Target::Value(1.5), Target::Value(-20.0)]);
        assert_eq!(targets("dev"), [Target::Value(0.5), Target::Value(7.0)]);
        let error = task.read(data.path(), "test").unwrap_err().to_string();
        assert!(
            error.contains("test.tsv:3: `1,5` in the column `label` is not a number"),
            "{error}"
        );
        let both = TableConfig {
            labels: Some(vec!["0".into(), "1".into()]),
            ..config
        };
        assert!(matches!(open(both, &data), Err(DataError::Setting { .. })));
    }

    #[test]
    fn metrics_can_be_chosen_and_must_fit() {
        let data = folder(&[("train.csv", b"text,label\na,0\nb,1\n")]);
        let chosen = |metrics: &[MetricName]| TableConfig {
            metrics: Some(metrics.to_vec()),
            ..TableConfig::default()
        };
        let task = open(chosen(&[MetricName::Matthews]), &data).unwrap();
        assert_eq!(task.main_metric(), MetricName::Matthews);
        let error = open(chosen(&[MetricName::Pearson]), &data)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("setting `metrics`") && error.contains("accuracy"),
            "{error}"
        );
        assert!(open(chosen(&[]), &data).is_err());
    }

    #[test]
    fn splits_are_files() {
        let data = folder(&[
            ("train.csv", b"text,label\na,0\nb,1\n"),
            ("mine.tsv", b"text\nunlabelled\n"),
            ("half.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"b\",\"label\":null}\n{\"text\":\"c\",\"label\":\"1\"}"),
            ("dev.parquet", b""),
        ]);
        let mut config = TableConfig::default();
        config.files.insert("extra".into(), "mine.tsv".into());
        let task = open(config.clone(), &data).unwrap();
        assert_eq!(task.splits(), ["train", "dev", "test", "extra"]);
        let extra = task.read(data.path(), "extra").unwrap();
        assert_eq!(
            (extra[0].text.as_str(), extra[0].target),
            ("unlabelled", None)
        );
        let half = task.read(data.path(), "half").unwrap();
        let targets: Vec<_> = half.iter().map(|example| example.target).collect();
        assert_eq!(targets, [None, None, Some(Target::Class(1))]);
        let error = task.read(data.path(), "dev").unwrap_err().to_string();
        assert!(
            error.contains("dev.csv: no such file; dev.tsv and dev.jsonl do not exist"),
            "{error}"
        );
        let error = task
            .read(&data.path().join("train.csv"), "dev")
            .unwrap_err()
            .to_string();
        assert!(error.contains("is not a folder"), "{error}");

        config.files.insert("dev".into(), "mine.tsv".into());
        let task = open(config.clone(), &data).unwrap();
        let error = task.read(data.path(), "dev").unwrap_err().to_string();
        assert!(
            error.contains("mine.tsv:1: no column `label`; the columns are `text`"),
            "{error}"
        );
        config.files.insert("dev".into(), "dev.parquet".into());
        let error = open(config, &data)
            .unwrap()
            .read(data.path(), "dev")
            .unwrap_err();
        assert!(
            error.to_string().contains(".csv, .tsv or .jsonl"),
            "{error}"
        );
        fs::write(data.path().join("train.jsonl"), "").unwrap();
        let error = task.read(data.path(), "train").unwrap_err().to_string();
        assert!(
            error.contains("train.csv and") && error.contains("train.jsonl"),
            "{error}"
        );
    }

    #[test]
    fn an_error_says_on_which_line() {
        let cases: [(&str, &[u8], &str); 15] = [
            (
                "train.csv",
                b"a,b,y\n1,\"2\n2\",0\n1,2\n",
                "train.csv:4: only 2 columns",
            ),
            (
                "train.csv",
                b"a,b,y\r\n1,\"2\r\n2\",0\r\n1,2,3,4\r\n",
                "train.csv:4: 4 columns",
            ),
            (
                "train.csv",
                b"a,b,y\n1,2,0\n1,2, \n",
                "train.csv:3: the column `y` is empty",
            ),
            (
                "train.csv",
                b"a,b,y\n1,2,0\n1,\"2,0\n1,2,0\n",
                "train.csv:3: a quotation mark",
            ),
            (
                "train.csv",
                b"a,b\n1,2\n",
                "train.csv:1: no column `y`; the columns are `a`, `b`",
            ),
            (
                "train.csv",
                b"\na,b,y,b\n1,2,0,3\n",
                "train.csv:2: the header has the column `b` twice",
            ),
            (
                "train.csv",
                b"a,b,y\n1,2,0\n1,\"2\n\xff\",0\n",
                "train.csv:4: invalid UTF-8",
            ),
            ("train.csv", b"a,b,y\n1,2,0\n", "has the class `0`"),
            ("train.csv", b"a,b,y\n", "train.csv: holds no examples"),
            ("train.csv", b"", "train.csv: holds no examples"),
            (
                "train.tsv",
                b"a\tb\ty\n1\t\"2\n",
                "train.tsv:2: only 2 columns",
            ),
            (
                "train.jsonl",
                b"\n[1]\n",
                "train.jsonl:2: not a JSON object",
            ),
            (
                "train.jsonl",
                b"{\"a\":\"1\",\"b\":\"2\",\"y\":0}\n{\"a\":",
                "train.jsonl:2: not a JSON object, at column 5",
            ),
            (
                "train.jsonl",
                b"{\"a\":\"1\",\"b\":2,\"y\":0}\n",
                "train.jsonl:1: the column `b` is not a string",
            ),
            (
                "train.jsonl",
                b"{\"a\":\"1\",\"y\":0}\n",
                "train.jsonl:1: no column `b`; the columns are `a`, `y`",
            ),
        ];
        for (name, bytes, expected) in cases {
            let error = open(pairs(), &folder(&[(name, bytes)]))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
        let deep = "[".repeat(100_000);
        let error = open(pairs(), &folder(&[("train.jsonl", deep.as_bytes())])).unwrap_err();
        assert!(error.to_string().contains("train.jsonl:1:"), "{error}");
    }

    /// Opens and reads a train split and checks that an error names the file.
    fn try_all(bytes: &[u8]) -> Result<(), TestCaseError> {
        for format in FORMATS {
            let file = format!("train.{format}");
            let data = folder(&[(&file, bytes)]);
            let regression = TableConfig {
                regression: true,
                ..pairs()
            };
            for config in [pairs(), regression] {
                let read = open(config, &data).and_then(|task| task.read(data.path(), TRAIN));
                match read {
                    Ok(examples) => {
                        prop_assert!(!examples.is_empty());
                        prop_assert!(examples.iter().all(|example| example.target.is_some()));
                    }
                    Err(error) => prop_assert!(error.to_string().contains(&file), "{}", error),
                }
            }
        }
        Ok(())
    }

    const SAMPLES: [&str; 3] = [
        "a,b,y\r\n1,\"2\r\n2\",0\r\n\"one \"\"q\"\"\",two,1\r\n",
        "a\tb\ty\n1\t2\t0\n\"one\ttwo\t1\n",
        "{\"a\":\"1\",\"b\":\"2\",\"y\":0}\n{\"a\":\"\\u00e9\",\"b\":\"2\",\"y\":\"1\"}\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            try_all(&bytes)?;
        }

        #[test]
        fn no_damaged_file_makes_it_panic(
            which in 0..SAMPLES.len(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), prop::sample::select(
                b"\t\n\r\",{}[]\\:\xff\xc30x".to_vec())), 1..8),
        ) {
            let mut bytes = SAMPLES[which].as_bytes().to_vec();
            for (at, insert, byte) in changes {
                let at = at.index(bytes.len());
                if insert {
                    bytes.insert(at, byte);
                } else {
                    bytes[at] = byte;
                }
            }
            try_all(&bytes)?;
        }

        #[test]
        fn what_is_written_is_read(
            rows in prop::collection::vec((any::<String>(), any::<String>(), 0..3usize), 1..20),
        ) {
            let config = TableConfig {
                labels: Some(vec!["0".into(), "1".into(), "2".into()]),
                ..pairs()
            };
            let mut csv = csv::Writer::from_writer(Vec::new());
            csv.write_record(["a", "b", "y"]).unwrap();
            let mut jsonl = String::new();
            for (a, b, y) in &rows {
                csv.write_record([a, b, &y.to_string()]).unwrap();
                jsonl.push_str(&serde_json::json!({"a": a, "b": b, "y": y}).to_string());
                jsonl.push('\n');
            }
            let csv = csv.into_inner().unwrap();
            let expected: Vec<Example> =
                rows.iter().map(|(a, b, y)| example(a, Some(b), Target::Class(*y))).collect();
            for (file, bytes) in [("dev.csv", csv.as_slice()), ("dev.jsonl", jsonl.as_bytes())] {
                let data = folder(&[(file, bytes)]);
                let task = open(config.clone(), &data).unwrap();
                prop_assert_eq!(&task.read(data.path(), "dev").unwrap(), &expected, "{}", file);
            }
        }

        /// The line of an error is one more than the line breaks before the row.
        #[test]
        fn the_line_is_right_whatever_comes_before(
            cells in prop::collection::vec("[ab\",\n]{0,8}", 1..12),
            crlf in any::<bool>(),
        ) {
            let end = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
            let mut csv = csv::WriterBuilder::new().terminator(end).from_writer(Vec::new());
            csv.write_record(["text", "label"]).unwrap();
            for cell in &cells {
                csv.write_record([cell, "0"]).unwrap();
            }
            csv.flush().unwrap();
            let mut bytes = csv.into_inner().unwrap();
            let line = 1 + bytes.iter().filter(|&&byte| byte == b'\n').count();
            bytes.extend(b"x,7\n");
            let config = TableConfig {
                labels: Some(vec!["0".into(), "1".into()]),
                ..TableConfig::default()
            };
            let data = folder(&[("train.csv", &bytes)]);
            let error = open(config, &data).unwrap().read(data.path(), "train").unwrap_err();
            let expected = format!("train.csv:{line}: unknown label `7`");
            prop_assert!(error.to_string().contains(&expected), "{} {}", error, line);
        }
    }
}
