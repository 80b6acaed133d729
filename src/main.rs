//! The `mtlora` program.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mtlora: {error}");
            ExitCode::from(2)
        }
    }
}
