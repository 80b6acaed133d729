//! From texts to tokens, with errors that say where a text comes from.

use std::error::Error;
use std::path::Path;

use mtlora::models::{ModelError, TextEncoder, model_max_length};
use mtlora::train::{Example, FitError, Item, encode};

/// The examples' tokens. `place` says where the one of a number, from 1, comes from.
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

/// An error about one of several texts with the place that it comes from.
pub(crate) fn located(error: ModelError, place: impl Fn(usize) -> String) -> Box<dyn Error> {
    match error {
        ModelError::OneOf { number, source } => format!("{}: {source}", place(number)).into(),
        other => other.into(),
    }
}

/// The line of the text of a number, from 1.
pub(crate) fn line_of(lines: &[usize], number: usize) -> usize {
    let line = number.checked_sub(1).and_then(|at| lines.get(at));
    line.copied().unwrap_or(number)
}

/// Where the examples of a split come from.
pub(crate) fn of_split(data: &Path, split: &str) -> impl Fn(usize) -> String {
    let place = format!("{}, split {split}", data.display());
    move |number| format!("{place}, example {number}")
}

/// The most tokens of an example if nothing else says it: `default`, or the length that the tokenizer of the model in
/// `folder` is for, if that is less.
pub(crate) fn default_length(folder: &Path, default: usize) -> Result<usize, ModelError> {
    Ok(model_max_length(folder)?.map_or(default, |length| length.min(default)))
}
