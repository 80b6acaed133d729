//! Tokenises texts, with errors that name the place of the text.

use std::error::Error;
use std::path::Path;

use mtlora::models::{ModelError, TextEncoder, model_max_length};
use mtlora::train::{Example, FitError, Item, encode};

/// Tokenises examples. `place` returns the place of the example with a number, counted from 1, for error messages.
pub(crate) fn encoded(
    text: &TextEncoder,
    examples: &[Example],
    place: impl Fn(usize) -> String,
) -> Result<Vec<Item>, Box<dyn Error>> {
    encode(text, examples).map_err(|error| match error {
        FitError::Model(error) => located(error, place),
        other => other.into(),
    })
}

/// Adds the place to an error about one of several texts.
pub(crate) fn located(error: ModelError, place: impl Fn(usize) -> String) -> Box<dyn Error> {
    match error {
        ModelError::OneOf { number, source } => format!("{}: {source}", place(number)).into(),
        other => other.into(),
    }
}

/// The line of the text with this number, counted from 1.
pub(crate) fn line_of(lines: &[usize], number: usize) -> usize {
    let line = number.checked_sub(1).and_then(|at| lines.get(at));
    line.copied().unwrap_or(number)
}

/// Returns a function for the places of the examples of a split.
pub(crate) fn of_split(data: &Path, split: &str) -> impl Fn(usize) -> String {
    let place = format!("{}, split {split}", data.display());
    move |number| format!("{place}, example {number}")
}

/// The maximum number of tokens of an example if it is not set: `default`, or the maximum length of the tokenizer in
/// `folder` if that is smaller.
pub(crate) fn default_length(folder: &Path, default: usize) -> Result<usize, ModelError> {
    Ok(model_max_length(folder)?.map_or(default, |length| length.min(default)))
}
