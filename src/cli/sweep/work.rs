//! Makes the runs of a sweep, one after the other, beside other processes that do the same.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::console::progress::Stopped;
use crate::cli::sweep::cell;
use crate::cli::sweep::plan::{Cell, Plan, Readiness};
use crate::cli::sweep::store::{Outcome, Outcomes, Store};
use crate::cli::train::Bases;

/// The pauses between looks at the folder while other processes have all that could be done.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// Which cells a process makes, and when it ends.
pub(super) struct Work {
    /// The cells by index, in the order in which they are tried.
    pub(super) order: Vec<usize>,
    /// Whether to wait for cells that other processes are making.
    pub(super) wait: bool,
}

/// Makes the runs of the cells that no other process has made or is making, until all are made.
///
/// # Errors
/// If the process is asked to stop, or a run failed for another reason than a divergence; the others are made before the
/// error is returned.
pub(super) fn work(plan: &Plan, store: &Store, work: &Work) -> Result<Outcomes, Box<dyn Error>> {
    let mut outcomes = Outcomes::default();
    let mut failures = store.refresh(plan, &mut outcomes);
    failures.retain(|index, _| work.order.contains(index));
    for why in failures.values() {
        note!("{why}");
    }
    let progress = Progress::new(outcomes.len(), plan.cells.len());
    let mut bases = Bases::default();
    let mut pause = SHORTEST;
    loop {
        let mut advanced = false;
        let mut elsewhere = false;
        for index in work.order.iter().copied() {
            if outcomes.get(index).is_some() || failures.contains_key(&index) {
                continue;
            }
            let Some(cell) = plan.cells.get(index) else {
                continue;
            };
            let settings = match plan.readiness(index, &outcomes, |cell| store.run_folder(cell)) {
                Readiness::Ready(settings) => settings,
                Readiness::Waiting => continue,
                Readiness::Blocked(why) => {
                    note!("{}: {why}", cell.name);
                    failures.insert(index, why);
                    continue;
                }
            };
            let Some(mut claim) = store.claim(cell)? else {
                elsewhere = true;
                continue;
            };
            advanced = true;
            store.check_unchanged(plan, index)?;
            // Another process may have ended it since it was looked up.
            match store.outcome(cell) {
                Ok(None) => {}
                Ok(Some(outcome)) => {
                    outcomes.set(index, outcome);
                    continue;
                }
                Err(error) => {
                    let why = error.to_string();
                    note!("{why}");
                    failures.insert(index, why);
                    continue;
                }
            }
            claim.note("begins")?;
            let started = Instant::now();
            match cell::run(&store.run_folder(cell), *settings, &mut bases) {
                Ok(outcome) => {
                    if let Outcome::Diverged { step } = outcome {
                        store.save_diverged(cell, step)?;
                    }
                    claim.note("ends")?;
                    drop(claim);
                    outcomes.set(index, outcome);
                    store.refresh(plan, &mut outcomes);
                    progress.show(cell, outcomes.get(index), outcomes.len(), started.elapsed());
                }
                Err(error) if error.is::<Stopped>() => return Err(error),
                Err(error) => {
                    let why = error.to_string();
                    note!("{}: {why}", cell.name);
                    failures.insert(index, why);
                }
            }
        }
        if advanced {
            pause = SHORTEST;
        } else if elsewhere && work.wait {
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST);
        } else {
            break;
        }
        store.refresh(plan, &mut outcomes);
    }
    match failures.len() {
        0 => Ok(outcomes),
        count => Err(format!(
            "{count} of {} runs failed (see above); fix the cause and start the sweep again: only the missing runs are made",
            work.order.len()
        )
        .into()),
    }
}

/// Prints what has been done, and estimates when the rest will be.
struct Progress {
    started: Instant,
    before: usize,
    total: usize,
}

impl Progress {
    fn new(before: usize, total: usize) -> Self {
        if before > 0 {
            note!("{before} of {total} runs have ended already");
        }
        Self {
            started: Instant::now(),
            before,
            total,
        }
    }

    fn show(&self, cell: &Cell, outcome: Option<&Outcome>, done: usize, time: Duration) {
        let result = match outcome {
            Some(Outcome::Done(results)) => {
                let metrics = results.scored.as_ref().map(|one| &one.metrics);
                let metrics = metrics.unwrap_or(&results.metrics);
                metrics
                    .iter()
                    .next()
                    .map_or("no score".to_string(), |(name, value)| {
                        format!("{name} {value:.4}")
                    })
            }
            Some(Outcome::Diverged { step }) => format!("diverged at step {step}"),
            None => return,
        };
        // Runs that other processes made meanwhile count, too.
        let made = done.saturating_sub(self.before).max(1);
        let left = self.total.saturating_sub(done);
        let seconds = self.started.elapsed().as_secs_f64() / made as f64 * left as f64;
        note!(
            "{done} of {}: {}: {result}, in {:.1} s; about {} to go",
            self.total,
            cell.name,
            time.as_secs_f64(),
            duration(seconds)
        );
    }
}

/// `40 s`, `12 min`, `3 h 05 min`
fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0..2 => format!("{seconds:.0} s"),
        2..60 => format!("{minutes} min"),
        _ => format!("{} h {:02} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_unit_that_fits() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (80.0, "80 s"),
            (119.0, "2 min"),
            (11_100.0, "3 h 05 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
