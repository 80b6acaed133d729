use std::error::Error;

use serde_json::json;

use crate::cli::console::output;
use crate::cli::settings::names;
use crate::cli::settings::recipe::{self, Recipe};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the settings of this recipe, as a file that `mtlora train --config` reads.
    #[arg(value_parser = names::known(recipe::names), hide_possible_values = true)]
    name: Option<String>,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    match args.name {
        Some(name) => show(&name, json),
        None => list(json),
    }
}

fn show(name: &str, json: bool) -> Result<(), Box<dyn Error>> {
    output::print(&Recipe::settings_file(name)?)?;
    if json {
        let recipe = Recipe::find(name)?;
        output::json(&json!({
            "recipe": name,
            "about": recipe.about,
            "starts_from": recipe.starts_from,
            "settings": recipe.values()?,
        }))?;
    }
    Ok(())
}

fn list(json: bool) -> Result<(), Box<dyn Error>> {
    let recipes = Recipe::all()?;
    for (name, recipe) in &recipes {
        let origin = match &recipe.starts_from {
            Some(origin) => format!("; starts from a run of {origin} (--init-from)"),
            None => String::new(),
        };
        say!("{name:18} {}{origin}", recipe.about)?;
    }
    if json {
        let names: Vec<&str> = recipes.iter().map(|(name, _)| *name).collect();
        output::json(&json!({ "recipes": names }))?;
    }
    Ok(())
}
