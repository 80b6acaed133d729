use std::error::Error;

use mtlora::train::acceptability::Acceptability;
use mtlora::train::{Task, glue};
use serde_json::json;

use crate::cli::console::output;
use crate::cli::settings::task::{PAIRS, TABLE, generation_tasks};

pub(crate) fn run(json: bool) -> Result<(), Box<dyn Error>> {
    let acceptability = Acceptability::new()?;
    let glue = glue::tasks();
    let mut tasks: Vec<&dyn Task> = vec![&acceptability];
    tasks.extend(glue.iter().map(|task| task as &dyn Task));
    for task in &tasks {
        let metrics: Vec<&str> = task
            .metric_names()
            .iter()
            .map(|name| name.as_str())
            .collect();
        say!(
            "{:13} {} [{}]",
            task.name(),
            task.describe(),
            metrics.join(", ")
        )?;
    }
    say!("{TABLE:13} your own CSV, TSV or JSONL: --text-column, --pair-column, --label-column")?;
    let generation = generation_tasks();
    for task in &generation {
        say!(
            "{:13} {} [{}]",
            task.name(),
            task.describe(),
            task.metric_names().join(", ")
        )?;
    }
    say!("{PAIRS:13} your own CSV, TSV or JSONL: --prompt-column, --completion-column")?;
    if json {
        let names: Vec<&str> = tasks
            .iter()
            .map(|task| task.name())
            .chain([TABLE])
            .chain(generation.iter().map(|task| task.name()))
            .chain([PAIRS])
            .collect();
        output::json(&json!({ "tasks": names }))?;
    }
    Ok(())
}
