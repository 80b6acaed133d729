//! What is known of a training before its first step: the lengths of its examples, and with `--dry-run` the time and memory
//! that it takes.

use std::cmp::Reverse;
use std::error::Error;

use burn::module::Module;
use mtlora::train::bench::Subject;
use mtlora::train::{ProcessGroup, TrainOptions, shuffled};
use serde::Serialize;

use crate::cli::console::output;

/// Prints the lengths of the examples of a split, of which none is longer than `max_length` tokens.
pub(super) fn note_lengths(split: &str, lengths: &[usize], max_length: usize) {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    let (Some(shortest), Some(longest)) = (sorted.first(), sorted.last()) else {
        return;
    };
    let median = sorted[sorted.len() / 2];
    let full = sorted.iter().filter(|length| **length >= max_length);
    let limit = match full.count() {
        0 => format!("none reaches the maximum of {max_length}"),
        1 => format!("1 has the maximum of {max_length} and may have been cut"),
        count => format!("{count} have the maximum of {max_length} and may have been cut"),
    };
    note!(
        "{split}: {} examples of {shortest} to {longest} tokens, {median} at the median; {limit}",
        lengths.len()
    );
}

/// What a training takes, as `--json` prints it.
#[derive(Serialize)]
struct Preview {
    what: &'static str,
    /// The number of processes that train together.
    ranks: usize,
    examples: usize,
    tokens_per_epoch: usize,
    steps: usize,
    /// The examples and tokens of the batch with the most tokens.
    largest_batch: [usize; 2],
    /// The time of a step on that batch.
    largest_step_s: f64,
    /// From the time of a step on the batch with the median number of tokens. Without the evaluations.
    epoch_s: f64,
    training_s: f64,
    /// The peak resident memory of the process, where the system reports it. The memory of a GPU is not part of it.
    peak_rss_mb: Option<f64>,
}

/// Makes a few training steps, among them some on the largest batch of the first epoch, prints what the whole training takes,
/// and discards the steps.
pub(super) fn measure<'a, M: Module>(
    subject: Subject<'a, M>,
    lengths: &[usize],
    options: &TrainOptions,
    group: Option<&'a ProcessGroup<'a>>,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let ranks = group.map_or(1, ProcessGroup::size);
    let mut batches = shuffled(lengths, options.batch, options.seed, 0);
    let tokens = |batch: &[usize]| batch.iter().map(|index| lengths[*index]).sum::<usize>();
    batches.sort_by_key(|batch| tokens(batch));
    let (Some(largest), Some(usual)) = (batches.last(), batches.get(batches.len() / 2)) else {
        return Err("there is nothing to train on".into());
    };
    // The first step on each batch fills caches and allocates memory; the second one's time is kept.
    let mut subject = match group {
        Some(group) => subject.on(group),
        None => subject,
    };
    let mut timed = [0.0; 2];
    for _ in 0..2 {
        for (time, batch) in timed.iter_mut().zip([largest, usual]) {
            (subject, *time) = subject.step(batch)?;
        }
    }
    let [largest_step_s, usual_step_s] = timed;
    let tokens_per_epoch = lengths.iter().sum::<usize>();
    // A step has a batch for each rank.
    let tokens_per_step = ranks * tokens(usual).max(1);
    let epoch_s = usual_step_s * tokens_per_epoch as f64 / tokens_per_step as f64;
    let steps = options.steps(lengths);
    let steps_per_epoch = batches.len().div_ceil(options.gradient_accumulation);
    let preview = Preview {
        what: "dry run",
        ranks,
        examples: lengths.len(),
        tokens_per_epoch,
        steps,
        largest_batch: [largest.len(), tokens(largest)],
        largest_step_s,
        epoch_s,
        training_s: epoch_s * (steps as f64 / steps_per_epoch as f64),
        peak_rss_mb: output::peak_rss_mb(),
    };
    let epochs = match options {
        TrainOptions {
            max_steps: Some(_), ..
        } => String::new(),
        TrainOptions { epochs: 1, .. } => " of 1 epoch".to_string(),
        TrainOptions { epochs, .. } => format!(" of {epochs} epochs"),
    };
    preview.print(&epochs)?;
    if json {
        output::json(&preview)?;
    }
    Ok(())
}

/// The longest items, until they have `together` tokens, as many as an evaluation computes at once. A training also needs the
/// memory for that.
pub(super) fn longest<T: Clone>(
    items: &[T],
    together: usize,
    length: impl Fn(&T) -> usize,
) -> Vec<T> {
    let mut order: Vec<&T> = items.iter().collect();
    order.sort_by_key(|item| Reverse(length(item)));
    let mut tokens = 0;
    let is_room = |item: &&T| {
        let before = tokens;
        tokens += length(item);
        before < together
    };
    order.into_iter().take_while(is_room).cloned().collect()
}

impl Preview {
    /// Prints it; `epochs` says of how many epochs the steps are, if that is known.
    fn print(&self, epochs: &str) -> std::io::Result<()> {
        let [examples, tokens] = self.largest_batch;
        say!(
            "a step on the largest batch ({examples} examples, {tokens} tokens{}) takes {:.3} s",
            match self.ranks {
                1 => String::new(),
                ranks => format!("; one on each of {ranks} ranks"),
            },
            self.largest_step_s
        )?;
        let steps = match self.steps {
            1 => "the only step".to_string(),
            count => format!("all {count} steps"),
        };
        say!(
            "an epoch takes about {}, and {steps}{epochs} about {}, without the evaluations",
            duration(self.epoch_s),
            duration(self.training_s)
        )?;
        if let Some(peak) = self.peak_rss_mb {
            let who = match self.ranks {
                1 => "the process",
                _ => "each process",
            };
            say!("{who} needs {peak:.0} MiB of memory")?;
        }
        say!("nothing was written (--dry-run)")
    }
}

/// `12 s`, `3 min`, `2.5 h`
fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_items_that_fill_a_batch_are_found() {
        let lengths = [5000, 10, 4000, 20, 3000];
        assert_eq!(longest(&lengths, 8192, |one| *one), [5000, 4000]);
        assert_eq!(longest(&[3, 9, 4], 8192, |one| *one), [9, 4, 3]);
        assert_eq!(longest(&[], 8192, |one: &usize| *one), [0; 0]);
    }

    #[test]
    fn times_have_the_unit_that_is_read_at_once() {
        let times = [0.4, 119.0, 125.0, 7000.0, 9000.0].map(duration);
        assert_eq!(times, ["0 s", "119 s", "2 min", "117 min", "2.5 h"]);
    }
}
