//! Checks, before anything runs, that every run of a sweep has its model, its data and settings that fit them.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;

use mtlora::core::{AdaLora, AdapterMethod};
use mtlora::train::chat::ChatTask;
use mtlora::train::data_to_text::GenerationTask;
use mtlora::train::{AdapterSettings, BatchSize, DataSpec, MethodName, MetricName, Task, TaskData};

use crate::cli::hub;
use crate::cli::model::device;
use crate::cli::model::head::HeadOf;
use crate::cli::settings::defaults::NONE;
use crate::cli::settings::resolve::Resolved;
use crate::cli::sweep::plan::{Cell, Phase, Plan};
use crate::cli::text::held_back;
use crate::cli::train::{Bases, chat};

/// Resolves the settings of each arm on each task at each point of its grid, makes the model of each arm once for each task,
/// and reads the data of each task once. Where the Hub cannot be reached, which shows only after a while, it is asked once for
/// each model.
///
/// # Errors
/// Everything that is missing or does not fit, one line each.
pub(super) fn check(plan: &Plan) -> Result<(), Box<dyn Error>> {
    let mut problems = Problems::default();
    let mut bases = Bases::default();
    let mut unreachable: BTreeSet<Option<PathBuf>> = BTreeSet::new();
    for task in 0..plan.file.tasks.len() {
        let mut data = Examples::NotRead;
        for arm in 0..plan.file.arms.len() {
            let cells = plan.cells_of(task, arm);
            let finals = cells.filter(|(_, cell)| cell.phase == Phase::Final);
            let Some(cell) = finals.map(|(_, cell)| cell.clone()).next() else {
                continue;
            };
            for point in 0..plan.file.points(task, arm).len() {
                let settings = plan.settings(&cell, point);
                let (model, folder) =
                    settings.map_or((None, None), |settings| (settings.model, settings.data));
                // Without a model, the data are not read.
                let no_data = folder.filter(|folder| !folder.exists());
                let no_data = no_data.map(|folder| folder.display().to_string());
                let add_data = |problems: &mut Problems| {
                    if let Some(folder) = &no_data {
                        let text = format!("{folder}: there is no such folder, which `data` names");
                        problems.add(text, |text| plan.file.error(task, arm, text));
                    }
                };
                if unreachable.contains(&model) {
                    add_data(&mut problems);
                    continue;
                }
                match of_point(plan, &cell, point, &mut bases, &mut data) {
                    Ok(()) => {}
                    Err(error) => {
                        if hub::is_unreachable(error.as_ref()) {
                            unreachable.insert(model);
                        }
                        let said = error.to_string();
                        if !no_data.as_ref().is_some_and(|folder| said.contains(folder)) {
                            add_data(&mut problems);
                        }
                        problems.add(said, |text| plan.file.error(task, arm, text));
                    }
                }
            }
        }
    }
    problems.into_result()
}

/// What is known of the examples of a task.
#[derive(Clone, Copy, Debug)]
enum Examples {
    /// They have not been read.
    NotRead,
    /// They can be read. A run trains on this many, where that is known.
    Read(Option<usize>),
}

/// What is missing or does not fit. Many arms and tasks can have the same problem, such as a folder that is not there.
#[derive(Default)]
struct Problems {
    /// What is wrong, the line about the first arm and task that it concerns, and those of the others.
    found: Vec<(String, String, Vec<String>)>,
}

impl Problems {
    /// Adds a problem of an arm on a task, which `line` puts in front of it.
    fn add(&mut self, text: String, line: impl FnOnce(&str) -> String) {
        let line = line(&text);
        let known = self.found.iter_mut().find(|(known, ..)| *known == text);
        match known {
            Some((_, first, others)) if *first != line && !others.contains(&line) => {
                others.push(line);
            }
            Some(_) => {}
            None => self.found.push((text, line, Vec::new())),
        }
    }

    /// An error with one line for each problem, if there are any.
    fn into_result(self) -> Result<(), Box<dyn Error>> {
        if self.found.is_empty() {
            return Ok(());
        }
        let lines = self
            .found
            .into_iter()
            .map(|(_, line, others)| match others.len() {
                0 => line,
                1 => format!("{line} (and the same in one other place)"),
                count => format!("{line} (and the same in {count} other places)"),
            });
        Err(lines.collect::<Vec<_>>().join("\n").into())
    }
}

fn of_point(
    plan: &Plan,
    cell: &Cell,
    point: usize,
    bases: &mut Bases,
    data: &mut Examples,
) -> Result<(), Box<dyn Error>> {
    let is_new = matches!(data, Examples::NotRead);
    let Some(settings) = plan.settings(cell, point) else {
        return Ok(());
    };
    match settings.resolve(HeadOf::Model)? {
        Resolved::Classification(config, task) => {
            config.training.validate()?;
            config.base.adapter.check_training(&config.training)?;
            if point == 0 {
                let device = device::open(&config.device)?.autodiff();
                bases.classifier(&config.model(), &config.device, &device)?;
            }
            let computed = [task.metric_names(), &[MetricName::Loss]].concat();
            of_metric(plan, cell, &computed)?;
            of_start(plan, cell, &config.base.adapter)?;
            if is_new {
                *data = Examples::Read(Some(of_labels(task.as_ref(), &config.data)?));
            }
            if let (Examples::Read(Some(count)), BatchSize::Sequences(_)) =
                (*data, config.training.batch)
            {
                // With batches of a number of sequences, their lengths do not matter for the number of steps.
                let steps = config.training.steps(&vec![1; count]);
                config.base.adapter.hooks(steps)?;
            }
        }
        Resolved::Generation(config, task) => {
            config.training.validate()?;
            config.base.adapter.check_training(&config.training)?;
            if point == 0 {
                let device = device::open(&config.device)?.autodiff();
                bases.generator(&config.model(), &config.device, &device)?;
            }
            of_start(plan, cell, &config.base.adapter)?;
            if is_new {
                of_texts(task.as_ref(), &config.kind.train_split, &config.data)?;
                *data = Examples::Read(None);
            }
        }
        Resolved::Chat(config) => {
            config.training.validate()?;
            config.base.adapter.check_training(&config.training)?;
            if point == 0 {
                let device = device::open(&config.device)?.autodiff();
                bases.generator(&config.model(), &config.device, &device)?;
            }
            of_metric(plan, cell, &chat::METRICS)?;
            of_start(plan, cell, &config.base.adapter)?;
            if is_new {
                for split in splits(&ChatTask, ChatTask.train_split(), &config.data) {
                    ChatTask.read(&config.data.folder, split)?;
                }
                *data = Examples::Read(None);
            }
        }
    }
    Ok(())
}

/// Refuses a metric of the sweep's file that the runs will not have.
fn of_metric(plan: &Plan, cell: &Cell, computed: &[MetricName]) -> Result<(), String> {
    let task = plan.file.tasks.get(cell.task);
    let Some(metric) = task.and_then(|task| task.metric.as_deref()) else {
        return Ok(());
    };
    if computed.iter().any(|one| one.as_str() == metric) {
        return Ok(());
    }
    let names: Vec<&str> = computed.iter().map(|one| one.as_str()).collect();
    Err(format!(
        "the runs have no metric {metric}: choose one of {}",
        names.join(", ")
    ))
}

/// Refuses an arm that cannot start from its own adapter for another task, where the task says that it does.
fn of_start(plan: &Plan, cell: &Cell, adapter: &AdapterSettings) -> Result<(), String> {
    let is_lora = adapter.method == MethodName::MtLora;
    if plan.origin(cell.task, cell.arm).is_none()
        || is_lora && adapter.structure != AdapterMethod::from(AdaLora)
    {
        return Ok(());
    }
    let what = match is_lora {
        true => format!("an adapter with structure {}", adapter.structure.name()),
        false => format!("method {}", adapter.method),
    };
    Err(format!(
        "{what} cannot start from the run of another task: give this arm init_from = \"{NONE}\" on this task"
    ))
}

/// Checks the splits of a task, and returns how many examples a run trains on.
fn of_labels(task: &dyn Task, data: &DataSpec) -> Result<usize, Box<dyn Error>> {
    let mut learned = 0;
    for split in splits(task, task.train_split(), data) {
        let examples = task.read(&data.folder, split)?;
        if let Some(at) = examples.iter().position(|one| one.target.is_none()) {
            return Err(format!(
                "{}, split {split}: example {} has no label, so it can be neither trained on nor scored",
                data.folder.display(),
                at + 1
            )
            .into());
        }
        if split == task.train_split() {
            learned = match data.validation_fraction {
                Some(fraction) => held_back::by_class(examples, fraction, |one| one.target)?
                    .0
                    .len(),
                None => examples.len(),
            };
        }
    }
    Ok(learned)
}

fn of_texts(task: &dyn GenerationTask, train: &str, data: &DataSpec) -> Result<(), Box<dyn Error>> {
    for split in splits(task, train, data) {
        task.read(&data.folder, split)?;
    }
    Ok(())
}

/// The splits that a run reads.
fn splits<'a, T: TaskData + ?Sized>(
    task: &'a T,
    train: &'a str,
    data: &'a DataSpec,
) -> Vec<&'a str> {
    let mut splits = vec![train];
    if data.validation_fraction.is_none() {
        splits.push(task.dev_split());
    }
    splits.extend(data.score_split.as_deref());
    splits
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_problem_of_many_arms_is_reported_once() {
        let mut problems = Problems::default();
        for arm in ["lora", "shim", "full", "lora"] {
            problems.add("no such folder".to_string(), |text| {
                format!("arm {arm}: {text}")
            });
        }
        problems.add("no labels".to_string(), |text| format!("arm head: {text}"));
        let error = problems.into_result().unwrap_err().to_string();
        assert_eq!(
            error,
            "arm lora: no such folder (and the same in 2 other places)\narm head: no labels"
        );
        assert!(Problems::default().into_result().is_ok());
    }
}
