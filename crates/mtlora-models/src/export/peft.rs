//! PEFT's folder, which vLLM, SGLang and mistral.rs read too.

use std::path::{Path, PathBuf};

use super::error::ExportError;
use super::plain::PlainAdapter;
use crate::files::names::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};

/// Writes the two files.
pub(super) fn write(plain: &PlainAdapter<'_>, folder: &Path) -> Result<Vec<PathBuf>, ExportError> {
    plain.adapter.write(folder)?;
    Ok(vec![
        folder.join(ADAPTER_WEIGHTS_FILE),
        folder.join(ADAPTER_CONFIG_FILE),
    ])
}
