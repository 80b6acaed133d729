//! `mtlora man`.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::cli::console::output;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder for the pages; it is made if it does not exist. `man` finds them in share/man/man1 beside a folder
    /// bin with the program.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, program: clap::Command, json: bool) -> Result<(), Box<dyn Error>> {
    let folder = &args.out;
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(program, folder))
        .map_err(|error| {
            let folder = folder.display();
            format!("the manual pages cannot be written into {folder}: {error}")
        })?;
    say!("the manual pages are in {}", folder.display())?;
    if json {
        output::json(&json!({ "folder": folder.display().to_string() }))?;
    }
    Ok(())
}
