//! Prints notes about a model's folder.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use mtlora::models::folder_notes;

/// Prints the settings in a model's folder that transformers would use and this program ignores, each one once per
/// process. Errors are ignored here, because the code that loads the model reports them.
pub(crate) fn tell(folder: &Path) {
    static PRINTED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    for note in folder_notes(folder).unwrap_or_default() {
        let text = note.to_string();
        let mut printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.get_or_insert_default().insert(text.clone()) {
            note!("{text}");
        }
    }
}
