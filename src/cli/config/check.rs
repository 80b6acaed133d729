//! `mtlora config check`.

use std::error::Error;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::config::kind::Kind;
use crate::cli::console::output;
use crate::cli::settings::flags::Settings;
use crate::cli::settings::recipe::Recipe;
use crate::cli::settings::source::{Mistakes, Source};
use crate::cli::sweep::file::SweepFile;
use crate::cli::sweep::plan::Plan;

pub(super) fn run(files: &[PathBuf], json: bool) -> Result<(), Box<dyn Error>> {
    let mut problems = Vec::new();
    let mut correct: Vec<Value> = Vec::new();
    for file in files {
        match check(file) {
            Ok((kind, what)) => {
                say!("{} is valid: {what}", file.display())?;
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
            let settings = Settings::checked(&source)?;
            if let Some(idle) = settings.without_effect() {
                note!("{}", idle.note(&source));
            }
            "a settings file".to_string()
        }
        Kind::Recipe => {
            let recipe = Recipe::of(&source)?;
            let mut mistakes = Mistakes::default();
            for wrong in recipe.settings.wrong() {
                wrong.add_to(&mut mistakes, &source, Some("settings"));
            }
            mistakes.into_result()?;
            "a recipe".to_string()
        }
        Kind::Sweep => {
            let plan = Plan::new(SweepFile::of(source)?);
            of_sweep(&plan.file)?;
            for note in plan.file.notes() {
                note!("{}: {note}", file.display());
            }
            format!("a sweep of {} runs", plan.cells.len())
        }
    };
    Ok((kind, what))
}

/// Checks the settings of each arm on each task, at each point of its grid.
fn of_sweep(file: &SweepFile) -> Result<(), String> {
    let mut found: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for task in 0..file.tasks.len() {
        for arm in 0..file.arms.len() {
            for point in file.points(task, arm) {
                // What is wrong in several places is said once.
                for wrong in point.settings.wrong() {
                    if !found.contains(&wrong.message) {
                        lines.push(file.error(task, arm, &wrong.message));
                        found.push(wrong.message);
                    }
                }
            }
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    Err(lines.join("\n"))
}
