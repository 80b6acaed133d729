use std::error::Error;

use serde_json::json;

use crate::cli::console::output;
use crate::cli::settings::recipe::Recipe;

pub(crate) fn run(json: bool) -> Result<(), Box<dyn Error>> {
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
