//! The `mtlora` program.

// These panic where nobody reads: see cli/console/output.rs.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod memory;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::keep_freed_memory();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(cli::fail(error.as_ref())),
    }
}
