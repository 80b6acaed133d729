use std::error::Error;

use mtlora::train::{Task, glue};
use serde_json::json;

use super::output;
use super::task::TABLE;

pub(crate) fn run(json: bool) -> Result<(), Box<dyn Error>> {
    let tasks = glue::tasks();
    for task in &tasks {
        let metrics: Vec<&str> = task
            .metric_names()
            .iter()
            .map(|name| name.as_str())
            .collect();
        println!(
            "{:6} {} [{}]",
            task.name(),
            task.describe(),
            metrics.join(", ")
        );
    }
    println!("{TABLE:6} your own CSV, TSV or JSONL: --text-column, --pair-column, --label-column");
    if json {
        let names: Vec<&str> = tasks.iter().map(Task::name).chain([TABLE]).collect();
        output::json(&json!({ "tasks": names }))?;
    }
    Ok(())
}
