//! `mtlora config check`.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::train::TrainOptions;
use serde_json::{Value, json};

use crate::cli::config::kind::Kind;
use crate::cli::console::output;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::recipe::Recipe;
use crate::cli::settings::source::Source;
use crate::cli::sweep::file::SweepFile;
use crate::cli::sweep::plan::Plan;

pub(super) fn run(files: &[PathBuf], json: bool) -> Result<(), Box<dyn Error>> {
    let mut problems = Vec::new();
    let mut correct: Vec<Value> = Vec::new();
    for file in files {
        match check(file) {
            Ok((kind, what)) => {
                say!("{}: {what}, without a mistake", file.display())?;
                correct.push(json!({ "file": file, "kind": kind.to_string() }));
            }
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("\n").into());
    }
    if json {
        output::json(&json!({ "files": correct }))?;
    }
    Ok(())
}

/// Checks a file. Returns its kind and what it is.
fn check(file: &Path) -> Result<(Kind, String), String> {
    let source = Source::read(file)?;
    let kind = Kind::of(&source)?;
    let what = match kind {
        Kind::Settings => {
            let settings = Settings::of(&source)?;
            of_training(&settings).map_err(|problem| problem.at(&source, None))?;
            "a settings file".to_string()
        }
        Kind::Recipe => {
            let recipe = Recipe::of(&source)?;
            let problem = of_training(&recipe.settings);
            problem.map_err(|problem| problem.at(&source, Some("settings")))?;
            "a recipe".to_string()
        }
        Kind::Sweep => {
            let plan = Plan::new(SweepFile::of(source)?);
            of_sweep(&plan.file)?;
            if let Some(note) = plan.file.too_few_seeds() {
                note!("{}: {note}", file.display());
            }
            format!("a sweep of {} runs", plan.cells.len())
        }
    };
    Ok((kind, what))
}

/// What is wrong with a setting.
struct Problem {
    keys: Vec<String>,
    message: String,
}

impl Problem {
    /// The message with the place of the setting in the table of this name, or in the whole file.
    fn at(&self, source: &Source, table: Option<&str>) -> String {
        let place = source.entries().and_then(|mut root| {
            let entries = match table {
                Some(name) => root.take_table(name)?,
                None => root,
            };
            let mut keys = self.keys.iter();
            Ok(keys.find_map(|key| entries.place_of(key)))
        });
        source.error(place.ok().flatten().unwrap_or(0), &self.message)
    }
}

/// Checks that the numbers are in range, and that the task, if one is named, is known and has these settings.
fn of_training(settings: &Settings) -> Result<(), Problem> {
    if let Some(task) = &settings.task {
        settings.check_for_task(task).map_err(|error| Problem {
            keys: vec!["task".to_string()],
            message: error.to_string(),
        })?;
    }
    let options = settings.training(TrainOptions::default());
    options.validate().map_err(|error| {
        let keys = keys_of(error.option);
        let given: Vec<&str> = keys.split(' ').collect();
        Problem {
            message: format!("{} must {}", given.join(" or "), error.requirement),
            keys: given.into_iter().map(str::to_string).collect(),
        }
    })
}

/// The settings that decide an option of run.toml.
fn keys_of(option: &str) -> &str {
    match option {
        "batch" => "batch batch_tokens",
        "learning_rate" => "lr",
        "adam.beta1" => "adam_beta1",
        "adam.beta2" => "adam_beta2",
        "adam.epsilon" => "adam_epsilon",
        "lora_plus.lr_ratio" => "loraplus_lr_ratio",
        "lora_plus.lr_ratio_t" => "loraplus_lr_ratio_t",
        same => same,
    }
}

/// Checks the settings of each arm on each task, at each point of its grid.
fn of_sweep(file: &SweepFile) -> Result<(), String> {
    for task in 0..file.tasks.len() {
        for arm in 0..file.arms.len() {
            for point in file.points(task, arm) {
                let checked = of_training(&point.settings);
                checked.map_err(|problem| file.error(task, arm, problem.message))?;
            }
        }
    }
    Ok(())
}
