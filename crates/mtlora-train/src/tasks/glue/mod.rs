//! The nine tasks of GLUE (Wang et al. 2019), from the tab-separated files as they are published.
//!
//! A file is found in the task's folder inside of the GLUE folder (`RTE/dev.tsv`), or in the given folder itself. Each
//! line is a row, and quotation marks have no special meaning. Classes are in the order of the Hugging Face data set, so
//! that they have the same numbers as in checkpoints trained elsewhere.
//!
//! A line with too few or too many columns is an error. The one exception is QQP, whose published files have a few
//! questions with a line break in them (about 24 of 363,870 lines of the train set): up to one such line in 1,000 is
//! left out, as in the Hugging Face data set, and [`TaskData::read_noting`] reports how many.
//!
//! If there are no such files, Parquet files in the form of the Hugging Face Hub ([`HUB_DATASET`]) are read: `rte/` with
//! `validation-00000-of-00001.parquet` and so on, or that folder itself.

mod hub;

use std::fs;
use std::path::{Path, PathBuf};

use mtlora_models::messages::shown;

use crate::data::error::{DataError, listed};
use crate::data::example::{Example, Objective, Target};
use crate::data::rows::{check_width, find_column, need_column, number, tsv};
use crate::data::text_file::read_text;
use crate::metrics::labels::MetricName::{self, Accuracy, F1, Matthews, Pearson, Spearman};
use crate::tasks::task::{Task, TaskData, TextColumns, unknown_split};

pub use hub::{HUB_DATASET, is_hub_file};

/// One of this many lines of QQP may be broken.
const LINES_PER_BROKEN: usize = 1000;
/// The range of STS-B's similarity scores.
const SIMILARITY: std::ops::RangeInclusive<f32> = 0.0..=5.0;

/// The properties of a task that differ between tasks.
struct Spec {
    name: &'static str,
    folder: &'static str,
    describe: &'static str,
    text: &'static str,
    pair: Option<&'static str>,
    label: &'static str,
    /// The spellings of the classes in files, and their names; empty for the regression.
    classes: &'static [(&'static str, &'static str)],
    metrics: &'static [MetricName],
    splits: &'static [&'static str],
    /// The columns of files without a header.
    headerless: Option<&'static [&'static str]>,
    may_break: bool,
}

const SPLITS: &[&str] = &["train", "dev", "test"];

const COLA: Spec = Spec {
    name: "cola",
    folder: "CoLA",
    describe: "is the sentence acceptable English?",
    text: "sentence",
    pair: None,
    label: "label",
    classes: &[("0", "unacceptable"), ("1", "acceptable")],
    metrics: &[Matthews],
    splits: SPLITS,
    headerless: Some(&["source", "label", "mark", "sentence"]),
    may_break: false,
};

static SPECS: [Spec; 9] = [
    COLA,
    Spec {
        name: "sst2",
        folder: "SST-2",
        describe: "is the phrase from a film review negative or positive?",
        text: "sentence",
        pair: None,
        label: "label",
        classes: &[("0", "negative"), ("1", "positive")],
        metrics: &[Accuracy],
        splits: SPLITS,
        headerless: None,
        may_break: false,
    },
    Spec {
        name: "mrpc",
        folder: "MRPC",
        describe: "do two sentences from the news mean the same?",
        text: "#1 String",
        pair: Some("#2 String"),
        label: "Quality",
        classes: &[("0", "not_equivalent"), ("1", "equivalent")],
        metrics: &[Accuracy, F1],
        splits: SPLITS,
        headerless: None,
        may_break: false,
    },
    Spec {
        name: "stsb",
        folder: "STS-B",
        describe: "how similar are two sentences, from 0 to 5?",
        text: "sentence1",
        pair: Some("sentence2"),
        label: "score",
        classes: &[],
        metrics: &[Pearson, Spearman],
        splits: SPLITS,
        headerless: None,
        may_break: false,
    },
    Spec {
        name: "qqp",
        folder: "QQP",
        describe: "do two questions from Quora ask the same thing?",
        text: "question1",
        pair: Some("question2"),
        label: "is_duplicate",
        classes: &[("0", "not_duplicate"), ("1", "duplicate")],
        metrics: &[Accuracy, F1],
        splits: SPLITS,
        headerless: None,
        may_break: true,
    },
    Spec {
        name: "mnli",
        folder: "MNLI",
        describe: "does the first sentence entail the second, contradict it, or neither?",
        text: "sentence1",
        pair: Some("sentence2"),
        label: "gold_label",
        classes: &[
            ("entailment", "entailment"),
            ("neutral", "neutral"),
            ("contradiction", "contradiction"),
        ],
        metrics: &[Accuracy],
        splits: &[
            "train",
            "dev_matched",
            "dev_mismatched",
            "test_matched",
            "test_mismatched",
        ],
        headerless: None,
        may_break: false,
    },
    Spec {
        name: "qnli",
        folder: "QNLI",
        describe: "does the sentence answer the question?",
        text: "question",
        pair: Some("sentence"),
        label: "label",
        classes: &[
            ("entailment", "entailment"),
            ("not_entailment", "not_entailment"),
        ],
        metrics: &[Accuracy],
        splits: SPLITS,
        headerless: None,
        may_break: false,
    },
    Spec {
        name: "rte",
        folder: "RTE",
        describe: "does the second sentence follow from the first?",
        text: "sentence1",
        pair: Some("sentence2"),
        label: "label",
        classes: &[
            ("entailment", "entailment"),
            ("not_entailment", "not_entailment"),
        ],
        metrics: &[Accuracy],
        splits: SPLITS,
        headerless: None,
        may_break: false,
    },
    Spec {
        name: "wnli",
        folder: "WNLI",
        describe: "does the second sentence, which resolves a pronoun of the first, follow from it?",
        text: "sentence1",
        pair: Some("sentence2"),
        label: "label",
        classes: &[("0", "not_entailment"), ("1", "entailment")],
        metrics: &[Accuracy],
        splits: SPLITS,
        headerless: None,
        may_break: false,
    },
];

/// A task of GLUE.
#[derive(Clone)]
pub struct GlueTask {
    spec: &'static Spec,
    objective: Objective,
}

impl std::fmt::Debug for GlueTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GlueTask").field(&self.spec.name).finish()
    }
}

/// All nine tasks.
pub fn tasks() -> Vec<GlueTask> {
    SPECS.iter().map(GlueTask::new).collect()
}

/// CoLA. The acceptability task of this project has the same file format and classes.
pub(crate) fn cola() -> GlueTask {
    GlueTask::new(&COLA)
}

/// The task of that name; case, `-` and `_` do not matter, so that `SST-2` is `sst2`.
///
/// # Errors
/// [`DataError::UnknownTask`], which lists the names of all GLUE tasks.
pub fn task(name: &str) -> Result<GlueTask, DataError> {
    let plain: String = name
        .chars()
        .filter(|character| !matches!(character, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect();
    SPECS
        .iter()
        .find(|spec| spec.name == plain)
        .map(GlueTask::new)
        .ok_or_else(|| DataError::UnknownTask {
            name: name.to_string(),
            known: SPECS.iter().map(|spec| spec.name.to_string()).collect(),
        })
}

impl GlueTask {
    fn new(spec: &'static Spec) -> Self {
        let labels: Vec<String> = spec
            .classes
            .iter()
            .map(|(_, name)| name.to_string())
            .collect();
        let objective = if labels.is_empty() {
            Objective::Regression
        } else {
            Objective::Classification { labels }
        };
        Self { spec, objective }
    }

    /// The task's folder inside of the GLUE folder.
    pub fn folder(&self) -> &'static str {
        self.spec.folder
    }

    fn split_name<'s>(&self, split: &'s str) -> Result<&'s str, DataError> {
        let name = match split {
            "dev" => self.dev_split(),
            "test" if self.spec.name == "mnli" => "test_matched",
            other => other,
        };
        self.spec
            .splits
            .iter()
            .find(|known| **known == name)
            .copied()
            .ok_or_else(|| unknown_split(self, split))
    }

    /// The path of a split's file, and its text.
    fn text(&self, data: &Path, split: &str) -> Result<(PathBuf, String), DataError> {
        let file = format!("{split}.tsv");
        let inside = data.join(self.spec.folder).join(&file);
        let direct = data.join(&file);
        let path = if !inside.exists() && direct.exists() {
            direct
        } else {
            inside
        };
        let text = read_text(&path, || self.not_found_hint(data, &file))?;
        Ok((path, text))
    }

    fn not_found_hint(&self, data: &Path, file: &str) -> String {
        let folder = self.spec.folder;
        if !data.is_dir() {
            return format!(
                "{} is not a folder; name the GLUE folder, which holds {folder}, or {folder} itself",
                data.display()
            );
        }
        let inside = data.join(folder);
        let at = if inside.is_dir() { &inside } else { data };
        let mut there: Vec<String> = fs::read_dir(at)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".tsv"))
            .collect();
        there.sort();
        format!(
            "{} does not exist either; the .tsv files in {} are: {}; name the GLUE folder, which holds {folder}, or \
             {folder} itself",
            data.join(file).display(),
            at.display(),
            listed(&there),
        )
    }

    fn target(&self, path: &Path, line: usize, cell: &str) -> Result<Target, DataError> {
        if matches!(self.objective, Objective::Regression) {
            let value = number(cell).filter(|value| SIMILARITY.contains(value));
            return value.map(Target::Value).ok_or_else(|| {
                let message = format!(
                    "the {} {} is not a number from 0 to 5; correct the row or delete it",
                    self.spec.label,
                    shown(cell)
                );
                DataError::row(path, line, message)
            });
        }
        let classes = self.spec.classes;
        match classes.iter().position(|(spelling, _)| *spelling == cell) {
            Some(class) => Ok(Target::Class(class)),
            None => Err(DataError::UnknownLabel {
                path: path.to_path_buf(),
                line,
                label: cell.to_string(),
                known: classes
                    .iter()
                    .map(|(spelling, _)| spelling.to_string())
                    .collect(),
                hint: "correct the row or delete it".into(),
            }),
        }
    }
}

impl TaskData for GlueTask {
    type Item = Example;

    fn name(&self) -> &str {
        self.spec.name
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
        let split = self.split_name(split)?;
        let found = self.text(data, split);
        if let Err(DataError::NotFound { .. }) = found {
            let files = self.hub_files(data, &self.hub_split(split)?)?;
            if !files.is_empty() {
                return self.read_hub_files(&files);
            }
        }
        let (path, text) = found?;
        let path = path.as_path();
        let mut rows = tsv(&text).peekable();
        let Some((line, first)) = rows.peek().cloned() else {
            return Err(DataError::Empty {
                path: path.to_path_buf(),
            });
        };
        let columns: Vec<&str> = match self.spec.headerless {
            Some(columns) if !first.contains(&self.spec.text) => columns.to_vec(),
            _ => {
                rows.next();
                first
            }
        };
        let text_at = need_column(path, line, &columns, self.spec.text)?;
        let pair_at = match self.spec.pair {
            Some(pair) => Some(need_column(path, line, &columns, pair)?),
            None => None,
        };
        let label_at = if split.starts_with("test") {
            find_column(path, line, &columns, self.spec.label)?
        } else {
            Some(need_column(path, line, &columns, self.spec.label)?)
        };

        let mut examples = Vec::new();
        let mut broken: Option<(DataError, usize, usize)> = None;
        for (line, row) in rows {
            if let Err(error) = check_width(path, line, &row, &columns) {
                if !self.spec.may_break {
                    return Err(error);
                }
                broken.get_or_insert((error, line, 0)).2 += 1;
                continue;
            }
            let cell = |index: usize| row.get(index).copied().unwrap_or_default();
            examples.push(Example {
                text: cell(text_at).to_string(),
                pair: pair_at.map(|index| cell(index).to_string()),
                target: match label_at {
                    Some(index) => Some(self.target(path, line, cell(index))?),
                    None => None,
                },
            });
        }
        if let Some((first, line, count)) = broken {
            let lines = examples.len() + count;
            if count > lines / LINES_PER_BROKEN {
                return Err(first);
            }
            note(&format!(
                "{}: left out {count} of {lines} lines that have too few or too many columns; the first is line {line}",
                path.display()
            ));
        }
        if examples.is_empty() {
            return Err(DataError::Empty {
                path: path.to_path_buf(),
            });
        }
        Ok(examples)
    }

    fn describe(&self) -> &str {
        self.spec.describe
    }

    fn dev_split(&self) -> &str {
        if self.spec.name == "mnli" {
            "dev_matched"
        } else {
            "dev"
        }
    }

    fn splits(&self) -> Vec<&str> {
        self.spec.splits.to_vec()
    }
}

impl Task for GlueTask {
    fn objective(&self) -> &Objective {
        &self.objective
    }

    fn metric_names(&self) -> &[MetricName] {
        self.spec.metrics
    }

    /// The columns of the published files, and those of the Hub's files.
    fn text_columns(&self) -> Vec<TextColumns<'_>> {
        let published = TextColumns {
            text: self.spec.text,
            pair: self.spec.pair,
        };
        let (text, pair) = self.hub_columns();
        let hub = TextColumns { text, pair };
        if hub == published {
            vec![published]
        } else {
            vec![published, hub]
        }
    }
}

#[cfg(test)]
mod tests;
