//! `mtlora config`: checks the TOML files that the program reads, and describes them to editors.

mod check;
mod kind;
mod schema;

use std::error::Error;
use std::path::PathBuf;

use kind::Kind;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(clap::Subcommand)]
enum ConfigCommand {
    /// Check TOML files: settings for `train --config`, sweeps, and recipes. Models and data are not looked for; `train
    /// --dry-run` and `sweep run` do that.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the JSON schema of a kind of TOML file, with which an editor completes its keys, explains them and marks
    /// mistakes. Editors with Taplo (such as VS Code with Even Better TOML) use it if the first line of a file is
    /// `#:schema PATH`.
    Schema {
        /// The kind of file.
        #[arg(default_value = "settings")]
        kind: Kind,
    },
}

pub(crate) fn run(args: &Args, json: bool) -> Result<(), Box<dyn Error>> {
    match &args.command {
        ConfigCommand::Check { files } => check::run(files, json),
        ConfigCommand::Schema { kind } => schema::run(*kind, json),
    }
}
