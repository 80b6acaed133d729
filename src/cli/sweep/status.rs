//! `mtlora sweep status`: how far a sweep is.

use std::error::Error;
use std::path::Path;

use serde::Serialize;

use crate::cli::console::{output, table};
use crate::cli::sweep::plan::{Phase, Plan};
use crate::cli::sweep::store::{Outcome, Outcomes, Store};

/// How far an arm is on a task.
#[derive(Debug, Serialize)]
struct Line<'a> {
    task: &'a str,
    arm: &'a str,
    is_baseline: bool,
    tuned: usize,
    to_tune: usize,
    chosen: Option<&'a str>,
    scored: usize,
    to_score: usize,
    diverged: usize,
    running: usize,
}

#[derive(Serialize)]
struct Status<'a> {
    done: usize,
    total: usize,
    running: usize,
    arms: Vec<Line<'a>>,
}

pub(super) fn run(folder: &Path, json: bool) -> Result<(), Box<dyn Error>> {
    let (store, plan) = Store::open(folder)?;
    let outcomes = store.ended(&plan)?;
    let mut lines = Vec::new();
    for (task, of_task) in plan.file.tasks.iter().enumerate() {
        for (arm, of_arm) in plan.file.arms.iter().enumerate() {
            let line = Line {
                task: &of_task.name,
                arm: &of_arm.name,
                is_baseline: arm == plan.file.baseline,
                tuned: 0,
                to_tune: 0,
                chosen: None,
                scored: 0,
                to_score: 0,
                diverged: 0,
                running: 0,
            };
            lines.push(fill(line, &plan, &store, (task, arm), &outcomes));
        }
    }
    if let Some(about) = &plan.file.about {
        say!("{}", output::printable(about))?;
    }
    let running: usize = lines.iter().map(|line| line.running).sum();
    let head = [
        "task", "arm", "tuned", "chosen", "scored", "diverged", "running",
    ];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    for line in &lines {
        rows.push(vec![
            line.task.to_string(),
            match line.is_baseline {
                true => format!("{} (baseline)", line.arm),
                false => line.arm.to_string(),
            },
            format!("{}/{}", line.tuned, line.to_tune),
            line.chosen.unwrap_or("-").to_string(),
            format!("{}/{}", line.scored, line.to_score),
            line.diverged.to_string(),
            line.running.to_string(),
        ]);
    }
    output::print(&table::aligned(&rows))?;
    let (done, total) = (outcomes.len(), plan.cells.len());
    let running_now = match running {
        1 => "1 is running".to_string(),
        count => format!("{count} are running"),
    };
    let have = if done == 1 { "has" } else { "have" };
    say!("{done} of {total} runs {have} ended, and {running_now}")?;
    if done == total {
        say!("compare them with: mtlora table {}", folder.display())?;
    }
    if json {
        output::json(&Status {
            done,
            total,
            running,
            arms: lines,
        })?;
    }
    Ok(())
}

fn fill<'a>(
    mut line: Line<'a>,
    plan: &'a Plan,
    store: &Store,
    (task, arm): (usize, usize),
    outcomes: &Outcomes,
) -> Line<'a> {
    for (index, cell) in plan.cells_of(task, arm) {
        let (done, all) = match cell.phase {
            Phase::Tune(_) => (&mut line.tuned, &mut line.to_tune),
            Phase::Final => (&mut line.scored, &mut line.to_score),
        };
        *all += 1;
        match outcomes.get(index) {
            Some(outcome) => {
                *done += 1;
                line.diverged += usize::from(matches!(outcome, Outcome::Diverged { .. }));
            }
            None => line.running += usize::from(store.is_claimed(cell)),
        }
    }
    let chosen = plan.chosen(task, arm, outcomes);
    let points = plan.file.points(task, arm);
    line.chosen = chosen
        .and_then(|chosen| points.get(chosen))
        .map(|point| point.name.as_str());
    line
}
