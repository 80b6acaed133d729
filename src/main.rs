//! The `mtlora` program.

mod cli;
mod memory;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::keep_freed_memory();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mtlora: {error}");
            ExitCode::from(cli::exit_code(error.as_ref()))
        }
    }
}
