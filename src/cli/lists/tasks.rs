use std::error::Error;

use mtlora::train::registry;
use serde_json::json;

use crate::cli::console::output;

pub(crate) fn run(json: bool) -> Result<(), Box<dyn Error>> {
    let tasks = registry::all();
    for task in &tasks {
        let details = if task.column_settings().is_empty() {
            format!(" [{}]", task.metric_names().join(", "))
        } else {
            let settings = task.column_settings().iter();
            let flags: Vec<String> = settings
                .map(|setting| format!("--{}", setting.replace('_', "-")))
                .collect();
            format!(": {}", flags.join(", "))
        };
        say!("{:13} {}{details}", task.name(), task.describe())?;
    }
    if json {
        let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
        output::json(&json!({ "tasks": names }))?;
    }
    Ok(())
}
