//! Texts that are piped into the program, or written at a keyboard.

use std::io::{self, IsTerminal};
use std::path::Path;

use mtlora::train::{DataError, Input, Pairs, read_input_lines};

/// The name of standard input in messages.
pub(crate) const STANDARD_INPUT: &str = "standard input";

/// Reads a text from each line of standard input. If that is a terminal, a note says that the program is waiting, and how to end
/// the input.
///
/// # Errors
/// When a line cannot be read.
pub(crate) fn lines(pairs: Pairs) -> Result<Vec<Input>, DataError> {
    let input = io::stdin();
    if input.is_terminal() {
        let end = if cfg!(windows) {
            "Ctrl-Z and Enter"
        } else {
            "Ctrl-D"
        };
        note!("write a text on each line, and end with {end}");
    }
    read_input_lines(Path::new(STANDARD_INPUT), input.lock(), pairs)
}
