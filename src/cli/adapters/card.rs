//! The model cards of what is made from a run.

use std::path::Path;

use mtlora::train::Run;
use mtlora::train::report::{CardOf, write_card_of};

/// Writes a card into `out`, if `folder` is a complete run. Other folders have no scores to tell of.
pub(super) fn write(of: CardOf, folder: &Path, out: &Path) {
    let is_complete = Run::is_in(folder)
        && Run::open(folder).is_ok_and(|(run, _)| run.results().is_ok_and(|found| found.is_some()));
    if !is_complete {
        return;
    }
    // What the command was asked for is written, whether it has a card or not.
    if let Err(error) = write_card_of(of, folder, out) {
        note!("the model card could not be written: {error}");
    }
}
