//! `mtlora bench`: measures the speed of training and generation on this machine.

mod card;
mod device_work;
mod disturbance;
mod epoch;
mod generate;
mod model;
mod report;
mod step;

use std::error::Error;

use clap::Subcommand;

/// Flags of `mtlora bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Time training steps (forward, backward and optimizer) on sequences of one length.
    Step(step::Args),
    /// Time the training steps of an epoch, or of its beginning, on the real examples of a task's train split.
    Epoch(epoch::Args),
    /// Time the generation of texts of one length after random prompts, by beam search, with a causal model.
    Generate(generate::Args),
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    match args.what {
        What::Step(args) => step::run(args, json),
        What::Epoch(args) => epoch::run(args, json),
        What::Generate(args) => generate::run(args, json),
    }
}
