//! What the user should know of a model's folder.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use mtlora::models::folder_notes;

/// Tells what of a model's folder is not read although transformers would use it, each once. A folder that cannot be
/// read is told by what reads it.
pub(crate) fn tell(folder: &Path) {
    static TOLD: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    for note in folder_notes(folder).unwrap_or_default() {
        let text = note.to_string();
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get_or_insert_default().insert(text.clone()) {
            note!("{text}");
        }
    }
}
