//! The model cards of what is made from a run.

use std::path::Path;

use mtlora::train::Run;
use mtlora::train::report::{CardOf, write_card_of};

use crate::cli::hub;

/// Whether there is a card for what is made from `folder`: whether it is a complete run. Other folders have no scores to
/// tell of.
pub(super) fn is_for(folder: &Path) -> bool {
    Run::is_in(folder)
        && Run::open(folder).is_ok_and(|(run, _)| run.results().is_ok_and(|found| found.is_some()))
}

/// Writes a card into the folder `out`, or beside it if it is a GGUF file, if there is one for `folder`. `base` is the name
/// that the user gives to the base model, which may be its name on the Hub.
pub(crate) fn write(of: CardOf, folder: &Path, base: Option<&str>, out: &Path) {
    if !is_for(folder) {
        return;
    }
    let base = base.filter(|name| hub::is_name(name));
    // What the command was asked for is written, whether it has a card or not.
    if let Err(error) = write_card_of(of, folder, base, out) {
        note!("the model card could not be written: {error}");
    }
}
