//! `mtlora reproduce`: the paper's tables, as sweeps that the program brings along.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::json;

use crate::cli::console::output;
use crate::cli::settings::names;
use crate::cli::settings::source::Source;
use crate::cli::sweep::command::{FileArgs, ShareArgs, make};
use crate::cli::sweep::file::SweepFile;
use crate::cli::sweep::plan::Plan;
use crate::cli::sweep::store::{FILE, Store};
use crate::cli::sweep::{check, status};

/// The name of a sweep and the text of its file.
macro_rules! sweep {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../../recipes/", $name, ".toml")),
        )
    };
}

const SWEEPS: [(&str, &str); 3] = [
    sweep!("glue-roberta-base"),
    sweep!("glue-deberta-v3-base"),
    sweep!("nlg-gpt2-medium"),
];

/// The names of all sweeps.
fn tables() -> Vec<&'static str> {
    SWEEPS.into_iter().map(|(name, _)| name).collect()
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The table; without it, the tables are listed.
    #[arg(value_parser = names::known(tables), hide_possible_values = true)]
    name: Option<String>,
    /// The folder of the sweep [default: runs/NAME].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the file of the sweep, to change it and to run it with `mtlora sweep run`.
    #[arg(long, conflicts_with_all = ["check", "out"])]
    print: bool,
    /// Look for the models and the data, and make no run.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    share: ShareArgs,
}

pub(crate) fn run(
    args: &Args,
    threads: Option<NonZeroUsize>,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let Some(name) = &args.name else {
        return list(json);
    };
    let known = SWEEPS.into_iter().find(|(known, _)| known == name);
    let (_, text) = known.ok_or_else(|| {
        let names = SWEEPS.map(|(known, _)| known).join(", ");
        format!("there is no table `{name}`: one of {names}")
    })?;
    if args.print {
        output::print(text)?;
        return Ok(());
    }
    let plan = read(name, text)?;
    check::check(&plan)?;
    for note in plan.file.notes() {
        note!("{note}");
    }
    if args.check {
        say!(
            "the models and the data of all {} runs are there",
            plan.cells.len()
        )?;
        return Ok(());
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(name));
    let store = Store::create(&out, &plan)?;
    let place = FileArgs {
        file: out.join(FILE),
        out,
    };
    make(&plan, &store, &place, &args.share, threads, None)?;
    status::run(&place.out, json)
}

fn read(name: &str, text: &str) -> Result<Plan, String> {
    let source = Source::new(&format!("recipes/{name}.toml"), text);
    Ok(Plan::new(SweepFile::of(source)?))
}

fn list(json: bool) -> Result<(), Box<dyn Error>> {
    let mut all = Vec::new();
    for (name, text) in SWEEPS {
        let plan = read(name, text)?;
        let about = plan.file.about.clone().unwrap_or_default();
        say!("{name:22} {about}; {} runs", plan.cells.len())?;
        all.push(json!({ "name": name, "about": about, "runs": plan.cells.len() }));
    }
    if json {
        output::json(&json!({ "tables": all }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cli::settings::recipe::Recipe;

    #[test]
    fn the_papers_tasks_have_the_papers_settings() {
        let tables = [
            ("glue-roberta-base", "roberta-base", 8),
            ("nlg-gpt2-medium", "gpt2-medium", 3),
        ];
        for (name, model, count) in tables {
            let (_, text) = SWEEPS
                .into_iter()
                .find(|(known, _)| *known == name)
                .unwrap();
            let plan = read(name, text).unwrap();
            assert_eq!(plan.file.tasks.len(), count);
            for (task, of_task) in plan.file.tasks.iter().enumerate() {
                let recipe = Recipe::find(&format!("{model}/{}", of_task.name)).unwrap();
                assert_eq!(of_task.starts_from.is_some(), recipe.starts_from.is_some());
                let settings = recipe.settings;
                // The paper's learning rate is one of those that are tried.
                let lrs = plan.file.points(task, 0).iter().map(|one| one.settings.lr);
                let near =
                    |one: Option<f64>| (one.unwrap() / settings.lr.unwrap() - 1.0).abs() <= 0.25;
                assert!(lrs.into_iter().any(near), "{}", of_task.name);
                let own = &plan.file.points(task, 0)[0].settings;
                let fixed = |one: &crate::cli::settings::flags::Settings| {
                    (
                        one.rank,
                        one.alpha,
                        one.epochs,
                        one.batch,
                        one.max_length,
                        one.weight_decay,
                    )
                };
                assert_eq!(fixed(own), fixed(&settings), "{}", of_task.name);
            }
        }
    }

    #[test]
    fn every_table_is_read_and_has_five_seeds() {
        for (name, text) in SWEEPS {
            let plan = read(name, text).unwrap();
            assert_eq!(plan.file.seeds.len(), 5, "{name}");
            assert!(plan.file.about.is_some() && !plan.file.published.is_empty());
        }
        let adalora = read("glue-deberta-v3-base", SWEEPS[1].1).unwrap();
        let arm = adalora
            .file
            .arms
            .iter()
            .position(|arm| arm.name == "adalora")
            .unwrap();
        let rte = adalora.file.task("rte").unwrap();
        let settings = &adalora.file.points(rte, arm)[0].settings;
        assert_eq!(
            (
                settings.rank,
                settings.tinit,
                settings.tfinal,
                settings.delta_t
            ),
            (Some(2), Some(600), Some(1800), Some(1))
        );
        assert_eq!(
            (settings.orth_reg_weight, settings.epochs),
            (Some(0.3), Some(50))
        );
    }
}
