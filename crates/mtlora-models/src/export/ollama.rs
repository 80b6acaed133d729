//! An adapter for Ollama: llama.cpp's, and a Modelfile with the base and the adapter
//! (<https://docs.ollama.com/modelfile>: `FROM`, `ADAPTER`).

use std::path::{Path, PathBuf};

use super::error::ExportError;
use super::llama_cpp::{self, FILE};
use super::plain::PlainAdapter;
use crate::files::save::write_atomically;

/// Writes both files.
pub(super) fn write(plain: &PlainAdapter<'_>, folder: &Path) -> Result<Vec<PathBuf>, ExportError> {
    let name = plain.adapter.config.base_model_name_or_path.as_deref();
    // A line break would begin another instruction.
    let name = name.filter(|name| !name.contains(['\n', '\r']));
    let Some(name) = name.filter(|name| !name.trim().is_empty()) else {
        return Err(ExportError::Base {
            program: plain.server.title(),
            message:
                "name it with --base-model-name, as a model of Ollama's, a GGUF file, or a folder"
                    .to_string(),
        });
    };
    let adapter = llama_cpp::write(plain, folder)?;
    let modelfile = folder.join("Modelfile");
    let text = format!("FROM {name}\nADAPTER ./{FILE}\n");
    write_atomically(&modelfile, text.as_bytes())?;
    Ok(vec![modelfile, adapter])
}
