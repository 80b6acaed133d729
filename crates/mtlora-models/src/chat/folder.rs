//! Finds the chat template of a model folder, as `AutoTokenizer` of transformers 5.24 does.

use std::path::Path;

use serde_json::Value;

use super::error::ChatError;
use super::template::ChatTemplate;
use crate::error::ModelError;
use crate::files::names::{CHAT_TEMPLATE_FILE, CHAT_TEMPLATE_FOLDER};
use crate::files::read::read_bounded;
use crate::text::causal::CausalText;
use crate::text::tokenizer::{JsonFile, TOKENIZER_CONFIG_FILE};

/// The largest template that is read, in bytes. The longest published ones have some 20 KiB.
const MOST_BYTES: u64 = 1 << 20;
const FIELD: &str = "chat_template";
/// The name of the template for conversations without tools, where there are several.
const DEFAULT: &str = "default";
/// The name of the template for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// A template by its name, and where it was found.
struct Named {
    name: String,
    place: String,
    source: String,
}

impl ChatTemplate {
    /// The chat template of the model in `folder`, whose tokenizer is `text`: `chat_template.jinja` (and the files in
    /// `additional_chat_templates`), or else the field `chat_template` of tokenizer_config.json, which is one template or a
    /// list of named ones.
    ///
    /// # Errors
    /// When there is no template, or it cannot be read or is not valid.
    pub fn from_folder(folder: &Path, text: &CausalText) -> Result<Self, ChatError> {
        let mut all = files(folder)?;
        if all.is_empty() {
            all = fields(folder)?;
        }
        let take = |name: &str, all: &mut Vec<Named>| {
            let at = all.iter().position(|one| one.name == name)?;
            Some(all.swap_remove(at))
        };
        let Some(default) = take(DEFAULT, &mut all) else {
            let folder = folder.to_path_buf();
            return Err(ChatError::NoTemplate { folder });
        };
        let tokens = text.special_tokens();
        let template = Self::new(&default.place, &default.source, tokens)?;
        match take(TOOL_USE, &mut all) {
            Some(tools) => template.with_tool_use(&tools.place, &tools.source),
            None => Ok(template),
        }
    }
}

/// The source of a folder's chat template for conversations without tools, if it has one.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn template_source(folder: &Path) -> Result<Option<String>, ChatError> {
    let mut all = files(folder)?;
    if all.is_empty() {
        all = fields(folder)?;
    }
    let default = all.into_iter().find(|one| one.name == DEFAULT);
    Ok(default.map(|one| one.source))
}

/// The templates in files of their own.
fn files(folder: &Path) -> Result<Vec<Named>, ChatError> {
    let mut found = Vec::new();
    let mut add = |name: &str, path: &Path| {
        if path.exists() {
            let bytes = read_bounded(path, MOST_BYTES)?;
            let source = String::from_utf8(bytes).map_err(|_| ChatError::Template {
                place: path.display().to_string(),
                message: "is not UTF-8; save it as UTF-8".to_string(),
            })?;
            found.push(Named {
                name: name.to_string(),
                place: path.display().to_string(),
                source,
            });
        }
        Ok::<(), ChatError>(())
    };
    add(DEFAULT, &folder.join(CHAT_TEMPLATE_FILE))?;
    let others = folder.join(CHAT_TEMPLATE_FOLDER);
    for name in [DEFAULT, TOOL_USE] {
        add(name, &others.join(format!("{name}.jinja")))?;
    }
    Ok(found)
}

/// The templates in tokenizer_config.json.
fn fields(folder: &Path) -> Result<Vec<Named>, ModelError> {
    let Some(file) = JsonFile::read_if_there(folder, TOKENIZER_CONFIG_FILE)? else {
        return Ok(Vec::new());
    };
    let place = |name: &str| {
        let path = folder.join(TOKENIZER_CONFIG_FILE);
        match name {
            DEFAULT => format!("in {}", path.display()),
            other => format!("`{other}` in {}", path.display()),
        }
    };
    let one = |name: &str, source: &str| Named {
        name: name.to_string(),
        place: place(name),
        source: source.to_string(),
    };
    let wrong = || {
        let message = "is neither a template nor a list of objects with a name and a template; download the file again";
        file.fields().wrong(FIELD, message.to_string())
    };
    match file.get(FIELD) {
        None => Ok(Vec::new()),
        Some(Value::String(source)) => Ok(vec![one(DEFAULT, source)]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|entry| {
                let field = |name: &str| entry.get(name).and_then(Value::as_str);
                let (name, source) = field("name").zip(field("template")).ok_or_else(wrong)?;
                Ok(one(name, source))
            })
            .collect(),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(name, source)| Ok(one(name, source.as_str().ok_or_else(wrong)?)))
            .collect(),
        Some(_) => Err(wrong()),
    }
}
