//! Runs several adapters on one base model, whose weights are in memory only once.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use mtlora_models::messages::shown;
use mtlora_models::{ClassifierConfig, ClassifierModelConfig, PeftAdapter, TextEncoder};

use crate::data::error::{DataError, listed};
use crate::data::example::Example;
use crate::data::table_file;
use crate::inference::evaluation::{encode, predict};
use crate::inference::generator::{WriteError, WriteOptions, Written};
use crate::run::error::RunError;
use crate::run::model::base::BaseSpec;
use crate::run::model::base::{ModelSpec, Started};
use crate::run::model::classifier::{ClassifierSpec, LoadedClassifier, task_config};
use crate::run::model::generator::{GeneratorSpec, LoadedGenerator};
use crate::run::model::method_name::MethodName;
use crate::training::error::FitError;

/// An adapter and the name by which rows of a table refer to it. `S` is a [`ClassifierSpec`] or a [`GeneratorSpec`].
#[derive(Clone, Debug, PartialEq)]
pub struct NamedAdapter<S> {
    /// The name.
    pub name: String,
    /// The folder of the run or adapter, with the trained values.
    pub folder: PathBuf,
    /// The base model, and the adapter's settings.
    pub spec: S,
}

/// The model of each adapter, in the order of the adapters and without gradients. The weights of the base model are
/// read once, and the models share them; each model has its own head.
///
/// # Errors
/// When there are no adapters, their base models differ, one is not an adapter, has no head, or does not match the
/// model.
///
/// ```no_run
/// use std::path::{Path, PathBuf};
/// use mtlora_train::{NamedAdapter, Run, TypedConfig, load_classifiers};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let named = |name: &str, folder: &str| -> Result<_, Box<dyn std::error::Error>> {
///     let (_, config) = Run::open(Path::new(folder))?;
///     let TypedConfig::Classification(config) = config.typed() else {
///         return Err("the run is of a data-to-text task".into());
///     };
///     Ok(NamedAdapter {
///         name: name.to_string(),
///         folder: PathBuf::from(folder),
///         spec: config.model(),
///     })
/// };
/// let adapters = [named("mood", "runs/sst2")?, named("grammar", "runs/cola")?];
/// let device = mtlora_core::device("flex")?;
/// let models = load_classifiers(&adapters, &device)?;
/// # let _ = models;
/// # Ok(())
/// # }
/// ```
pub fn load_classifiers(
    adapters: &[NamedAdapter<ClassifierSpec>],
    device: &Device,
) -> Result<Vec<LoadedClassifier>, RunError> {
    let first = of_one_base(adapters)?;
    let Started {
        loaded: base,
        missing,
    } = first.spec.read_base(device)?;
    let frozen = first.spec.base.adapter.keep_base(base.model.no_grad())?;
    let fresh_head = missing.iter().any(|name| name.starts_with("classifier."));
    let mut all = Vec::with_capacity(adapters.len());
    for one in adapters {
        let adapter = open(one)?;
        let objective = &one.spec.head.objective;
        let config = task_config(
            &ClassifierConfig::from_folder(&one.spec.base.model)?,
            objective,
        )?;
        let mut model = frozen.clone();
        let other_head = config.num_labels() != base.config.num_labels();
        if adapter.num_labels().is_none() && (fresh_head || other_head) {
            return Err(RunError::NotShareable {
                folder: one.folder.clone(),
                reason: format!(
                    "has no head, and the base model has none with {} outputs",
                    config.num_labels()
                ),
            });
        }
        if other_head {
            model = model.with_head(&config, device);
        }
        all.push(LoadedClassifier {
            model: adapter.attach(model, &config, &[])?.valid(),
            text: TextEncoder::from_folder(
                &one.spec.base.model,
                &config,
                one.spec.base.max_length,
            )?,
            config,
        });
    }
    Ok(all)
}

/// Like [`load_classifiers`], for writing texts. The adapters are not folded in, because a folded weight would be a
/// copy.
///
/// # Errors
/// As [`load_classifiers`].
pub fn load_generators(
    adapters: &[NamedAdapter<GeneratorSpec>],
    device: &Device,
) -> Result<Vec<LoadedGenerator>, RunError> {
    let first = of_one_base(adapters)?;
    let base = first.spec.read_base(device)?.loaded;
    let frozen = first.spec.base.adapter.keep_base(base.model.no_grad())?;
    let mut all = Vec::with_capacity(adapters.len());
    for one in adapters {
        let adapter = open(one)?;
        let model = adapter.attach(frozen.clone(), &base.config, &[])?;
        all.push(LoadedGenerator {
            model: model.valid(),
            config: base.config.clone(),
            text: base.text.clone(),
        });
    }
    Ok(all)
}

/// The first adapter, if all adapters have the same base model in the same precision.
fn of_one_base<S: ModelSpec>(adapters: &[NamedAdapter<S>]) -> Result<&NamedAdapter<S>, RunError> {
    let first = adapters
        .first()
        .ok_or(RunError::Settings("there is no adapter"))?;
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let base = first.spec.base();
    let described = |name: &str, base: &BaseSpec| {
        format!(
            "{name} has {} in {}",
            base.model.display(),
            base.adapter.base_dtype
        )
    };
    for other in &adapters[1..] {
        let theirs = other.spec.base();
        if place(&theirs.model) != place(&base.model)
            || theirs.adapter.base_dtype != base.adapter.base_dtype
        {
            return Err(RunError::DifferentBases {
                first: described(&first.name, base),
                other: described(&other.name, theirs),
            });
        }
    }
    Ok(first)
}

fn open<S: ModelSpec>(one: &NamedAdapter<S>) -> Result<PeftAdapter, RunError> {
    let method = one.spec.base().adapter.method;
    if method != MethodName::MtLora {
        return Err(RunError::NotShareable {
            folder: one.folder.clone(),
            reason: format!(
                "was trained with method {method} and is not an adapter that could share its base model"
            ),
        });
    }
    Ok(PeftAdapter::from_folder(&one.folder)?)
}

/// A row of a table that names its adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedRow {
    /// The line of the row, counted from 1.
    pub line: usize,
    /// The index of the adapter, counted from 0.
    pub adapter: usize,
    /// The text, or the prompt.
    pub text: String,
    /// The second text of a pair, if a column for it was named.
    pub pair: Option<String>,
}

/// The columns of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutedColumns<'a> {
    /// The column with the adapter's name.
    pub adapter: &'a str,
    /// The column with the text, or the prompt.
    pub text: &'a str,
    /// The column with the second text of a pair.
    pub pair: Option<&'a str>,
}

/// Reads the rows of a CSV, TSV or JSONL file; each names one of the adapters in `names`.
///
/// # Errors
/// When the file cannot be read, or a row names an unknown adapter; the error names the file and the line.
pub fn read_routed(
    path: &Path,
    columns: RoutedColumns<'_>,
    names: &[&str],
) -> Result<Vec<RoutedRow>, DataError> {
    table_file::distinct_columns(&[
        ("adapter_column", Some(columns.adapter)),
        ("text_column", Some(columns.text)),
        ("pair_column", columns.pair),
    ])?;
    let mut rows = Vec::new();
    let mut push = |line: usize, name: &str, text: String, pair: Option<String>| {
        let name = name.trim();
        let adapter = names.iter().position(|known| *known == name);
        let adapter = adapter.ok_or_else(|| {
            let message = format!(
                "unknown adapter {}; the given adapters are {}",
                shown(name),
                listed(names)
            );
            DataError::row(path, line, message)
        })?;
        rows.push(RoutedRow {
            line,
            adapter,
            text,
            pair,
        });
        Ok(())
    };
    let RoutedColumns {
        adapter,
        text,
        pair,
    } = columns;
    match pair {
        None => table_file::each_cells(path, [adapter, text], |line, [name, text]| {
            push(line, &name, text, None)
        })?,
        Some(pair) => {
            table_file::each_cells(path, [adapter, text, pair], |line, [name, text, pair]| {
                push(line, &name, text, Some(pair))
            })?;
        }
    }
    Ok(rows)
}

/// The logits of each row from the model of its adapter, in the order of the rows. The rows of one adapter are computed
/// together.
///
/// # Errors
/// When the tokenizer fails (the error has the row's number), or the device fails.
pub fn predict_routed(
    models: &[LoadedClassifier],
    rows: &[RoutedRow],
    device: &Device,
) -> Result<Vec<Vec<f32>>, RunError> {
    let mut logits = vec![Vec::new(); rows.len()];
    for (parts, places) in models.iter().zip(by_adapter(rows, models.len())) {
        let examples: Vec<Example> = places
            .iter()
            .map(|place| Example {
                text: rows[*place].text.clone(),
                pair: rows[*place].pair.clone(),
                target: None,
            })
            .collect();
        let items = encode(&parts.text, &examples).map_err(|error| match error {
            FitError::Model(error) => {
                let place = |number: usize| places.get(number - 1).map_or(number, |at| at + 1);
                FitError::Model(error.renumbered(place))
            }
            other => other,
        })?;
        let found = predict(&parts.model, &parts.config, &items, device)?;
        for (place, one) in places.into_iter().zip(found) {
            logits[place] = one;
        }
    }
    Ok(logits)
}

/// Writes a text for each row with the model and the options of its adapter, in the order of the rows, and reports the
/// number of finished texts to `observe`. The rows of one adapter are written together.
///
/// # Errors
/// As [`LoadedGenerator::write`]; the error has the row's number.
pub fn write_routed(
    models: &[(LoadedGenerator, WriteOptions)],
    rows: &[RoutedRow],
    device: &Device,
    observe: &mut dyn FnMut(usize),
) -> Result<Vec<Written>, WriteError> {
    let mut all: Vec<Option<Written>> = vec![None; rows.len()];
    let mut before = 0;
    for ((parts, options), places) in models.iter().zip(by_adapter(rows, models.len())) {
        let inputs: Vec<&str> = places
            .iter()
            .map(|place| rows[*place].text.as_str())
            .collect();
        let mut done = |now| observe(before + now);
        let written = parts
            .write(&inputs, options, device, &mut done)
            .map_err(|error| error.renumbered(|number| places[number - 1] + 1))?;
        for (place, one) in places.into_iter().zip(written) {
            all[place] = Some(one);
        }
        before += inputs.len();
    }
    let numbered = all.into_iter().zip(1..);
    numbered
        .map(|(one, number)| one.ok_or(WriteError::Nothing { number }))
        .collect()
}

/// The rows of each of `count` adapters, as indices in `rows`.
fn by_adapter(rows: &[RoutedRow], count: usize) -> Vec<Vec<usize>> {
    let mut groups = vec![Vec::new(); count];
    for (place, row) in rows.iter().enumerate() {
        if let Some(group) = groups.get_mut(row.adapter) {
            group.push(place);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    const COLUMNS: RoutedColumns<'static> = RoutedColumns {
        adapter: "use",
        text: "words",
        pair: None,
    };

    #[test]
    fn rows_go_to_the_adapter_that_they_name() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("a.csv", "words,use\n\"x, y\",two\nz,one\nw, two \n"),
            ("a.tsv", "use\twords\ntwo\tx, y\none\tz\ntwo\tw\n"),
            (
                "a.jsonl",
                "{\"words\":\"x, y\",\"use\":\"two\"}\n{\"words\":\"z\",\"use\":\"one\"}\n{\"words\":\"w\",\"use\":\"two\"}\n",
            ),
        ];
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            let rows = read_routed(&path, COLUMNS, &["one", "two"]).unwrap();
            let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
            assert_eq!(texts, ["x, y", "z", "w"]);
            assert_eq!(by_adapter(&rows, 2), [vec![1], vec![0, 2]]);
        }
        let path = folder.path().join("pairs.csv");
        fs::write(&path, "words,more,use\nx,u,two\ny,z,one\n").unwrap();
        let pair = |column| RoutedColumns {
            pair: Some(column),
            ..COLUMNS
        };
        let rows = read_routed(&path, pair("more"), &["one", "two"]).unwrap();
        assert_eq!((rows[1].pair.as_deref(), rows[1].line), (Some("z"), 3));
        // A column cannot have two roles.
        for column in ["words", "use"] {
            let error = read_routed(&path, pair(column), &["one", "two"]).unwrap_err();
            assert!(matches!(error, DataError::Setting { .. }), "{error}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        fs::write(&path, "words,use\n\"x\ny\",one\nz,three\n").unwrap();
        let error = read_routed(&path, COLUMNS, &["one", "two"]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a.csv:4") && text.contains("three"), "{text}");
        let error = read_routed(
            &path,
            RoutedColumns {
                adapter: "who",
                ..COLUMNS
            },
            &["one"],
        );
        assert!(matches!(error, Err(DataError::UnknownColumn { .. })));
    }
}
