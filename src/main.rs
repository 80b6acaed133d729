//! The `mtlora` program.

mod cli;
mod memory;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::keep_freed_memory();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "mtlora: {}",
                cli::output::printable_lines(&error.to_string())
            );
            ExitCode::from(cli::exit_code(error.as_ref()))
        }
    }
}
