//! `mtlora bench`: what training and writing take on this machine.

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
    /// Time training steps on sequences of one length: forward, backward and optimizer.
    Step(step::Args),
    /// Time an epoch, or its beginning, of a task's train split, with real lengths and the batches of training.
    Epoch(epoch::Args),
    /// Writing texts of one length after random prompts, by beam search, with a causal model.
    Generate(generate::Args),
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    match args.what {
        What::Step(args) => step::run(args, json),
        What::Epoch(args) => epoch::run(args, json),
        What::Generate(args) => generate::run(args, json),
    }
}
