//! `mtlora completions`.

use std::error::Error;
use std::io::Write as _;

use clap_complete::{Shell, generate};
use serde_json::json;

use crate::cli::console::output;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell that reads the script.
    shell: Shell,
}

pub(crate) fn run(
    args: &Args,
    mut program: clap::Command,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let name = program.get_name().to_string();
    let mut script = Vec::new();
    generate(args.shell, &mut program, name, &mut script);
    output::stdout().write_all(&script)?;
    if json {
        output::json(&json!({ "shell": args.shell.to_string() }))?;
    }
    Ok(())
}
