//! Finds contents of a model folder that change results in transformers and are ignored here.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::ModelError;
use crate::families::registry::ModelFamilies;
use crate::files::names::{ADAPTER_CONFIG_FILE, CONFIG_FILE, TOKENIZER_FILE};
use crate::files::read::{is_there, read_bounded};
use crate::generation::ignored_settings;
use crate::messages::{listed, shown};
use crate::text::tokenizer::{
    JsonFile, MAX_TOKENIZER_BYTES, TOKENIZER_CONFIG_FILE, is_known_class,
};

/// A file of a model folder, or a setting in one, that is ignored here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderNote {
    /// The file.
    pub path: PathBuf,
    /// What is ignored, and what that changes.
    pub message: String,
}

impl fmt::Display for FolderNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}

/// Lists the contents of a model folder that would change results in transformers and are ignored here. For ordinary
/// folders of RoBERTa, BERT and GPT-2 the list is empty; docs/MODEL_FILES.md describes everything that is read.
///
/// # Errors
/// When a settings file cannot be read or is not valid JSON.
pub fn folder_notes(folder: &Path) -> Result<Vec<FolderNote>, ModelError> {
    let mut notes = Notes {
        folder,
        all: Vec::new(),
    };
    let config = JsonFile::read_if_there(folder, CONFIG_FILE)?;
    let model_type = config.as_ref().and_then(|file| file.get("model_type"));
    let model_type = model_type.and_then(Value::as_str);
    let writes = model_type.is_some_and(|one| ModelFamilies::builtin().writes_texts(one));
    if config.is_some() && folder.join(ADAPTER_CONFIG_FILE).exists() {
        notes.add(
            ADAPTER_CONFIG_FILE,
            "is not read with the model, while transformers would add this adapter to the model if PEFT is \
             installed; to use it, name the folder as the adapter, too",
        );
    }
    if let Some(file) = &config
        && file.get("auto_map").is_some()
    {
        notes.add(
            CONFIG_FILE,
            "`auto_map` names custom code of the model, which is not run (nor does transformers run it without \
             trust_remote_code); the model is read as an ordinary one of its `model_type`",
        );
    }
    if folder.join("modules.json").exists() {
        notes.add(
            "modules.json",
            "is not read: the layers that sentence-transformers adds after the model are not computed",
        );
    }
    notes.of_tokenizer(config.as_ref())?;
    if writes {
        notes.of_writing()?;
    }
    Ok(notes.all)
}

struct Notes<'a> {
    folder: &'a Path,
    all: Vec<FolderNote>,
}

impl Notes<'_> {
    fn add(&mut self, file: &str, message: impl Into<String>) {
        self.all.push(FolderNote {
            path: self.folder.join(file),
            message: message.into(),
        });
    }

    fn of_tokenizer(&mut self, config: Option<&JsonFile>) -> Result<(), ModelError> {
        let file = JsonFile::read_if_there(self.folder, TOKENIZER_CONFIG_FILE)?;
        let name = TOKENIZER_CONFIG_FILE;
        if file
            .as_ref()
            .is_some_and(|file| file.get("auto_map").is_some())
        {
            self.add(
                name,
                "`auto_map` names custom code of the tokenizer, which is not run (nor does transformers run it without \
                 trust_remote_code); tokenizer.json is read instead",
            );
        } else {
            let class = |file: Option<&JsonFile>| {
                let class = file?.get("tokenizer_class")?.as_str()?;
                (!class.is_empty()).then(|| class.to_string())
            };
            let named = class(file.as_ref()).map(|class| (name, class));
            let named = named.or_else(|| class(config).map(|class| (CONFIG_FILE, class)));
            if let Some((name, class)) = named.filter(|(_, class)| !is_known_class(class)) {
                self.add(
                    name,
                    format!(
                        "the tokenizer class {} is not known here, so tokenizer.json is read as it is; if transformers \
                         has a class of that name, it may split texts differently",
                        shown(&class)
                    ),
                );
            }
        }
        let Some(file) = file else {
            return Ok(());
        };
        let inputs = file.get("init_inputs").and_then(Value::as_array);
        if inputs.is_some_and(|inputs| !inputs.is_empty()) {
            self.add(
                name,
                "`init_inputs` is not read, while transformers passes it to the tokenizer's class",
            );
        }
        Ok(())
    }

    fn of_writing(&mut self) -> Result<(), ModelError> {
        if self.folder.join("custom_generate/generate.py").exists() {
            self.add(
                "custom_generate/generate.py",
                "is not run (nor does transformers run it without trust_remote_code); `mtlora generate` uses its own \
                 decoding",
            );
        }
        if let Some((file, settings)) = ignored_settings(self.folder)? {
            let are = if settings.len() == 1 { "is" } else { "are" };
            let mut message = format!(
                "texts are generated without {}, which transformers' generate uses and which {are} not supported here",
                listed(&settings)
            );
            if settings.contains(&"max_length") {
                message.push_str(" (max_new_tokens limits the length of a text)");
            }
            self.add(file, message);
        }
        let path = self.folder.join(TOKENIZER_FILE);
        if !is_there(&path) {
            return Ok(());
        }
        let bytes = read_bounded(&path, MAX_TOKENIZER_BYTES)?;
        let file: Value =
            serde_json::from_slice(&bytes).map_err(|error| ModelError::json(&path, &error))?;
        let tokens = tokens_around(file.get("post_processor"));
        if !tokens.is_empty() {
            self.add(
                TOKENIZER_FILE,
                format!(
                    "its post_processor adds {} around a text, which is not done here: a causal model reads only the \
                     tokens of the text itself",
                    listed(&tokens)
                ),
            );
        }
        Ok(())
    }
}

/// The special tokens that a post-processor adds around a single text.
fn tokens_around(processor: Option<&Value>) -> Vec<String> {
    let Some(processor) = processor else {
        return Vec::new();
    };
    let list = |field: &str| processor.get(field).and_then(Value::as_array);
    let inner = list("processors").into_iter().flatten();
    let mut tokens: Vec<String> = inner.flat_map(|inner| tokens_around(Some(inner))).collect();
    let pieces = list("single").into_iter().flatten();
    let ids = pieces.filter_map(|piece| piece.pointer("/SpecialToken/id"));
    tokens.extend(ids.filter_map(Value::as_str).map(str::to_string));
    for field in ["cls", "sep"] {
        let token = list(field).and_then(|pair| pair.first());
        tokens.extend(token.and_then(Value::as_str).map(str::to_string));
    }
    tokens.dedup();
    tokens
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        }
        folder
    }

    fn notes(files: &[(&str, Value)]) -> Vec<String> {
        let folder = folder(files);
        let notes = folder_notes(folder.path()).unwrap();
        let place = format!("{}/", folder.path().display());
        notes
            .iter()
            .map(|note| note.to_string().replace(&place, ""))
            .collect()
    }

    #[test]
    fn ordinary_folders_have_no_notes() {
        // These are files of the published folders, with their fields.
        let roberta = [
            (
                "config.json",
                json!({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}),
            ),
            ("tokenizer_config.json", json!({"model_max_length": 512})),
            ("vocab.json", json!({})),
            ("merges.txt", json!("")),
            ("dict.txt", json!("")),
            ("generation_config.json", json!({"bad_words_ids": [[3]]})),
        ];
        let bert = [
            ("config.json", json!({"model_type": "bert"})),
            (
                "tokenizer_config.json",
                json!({"do_lower_case": true, "tokenizer_class": "BertTokenizer", "init_inputs": []}),
            ),
            ("special_tokens_map.json", json!({"cls_token": "[CLS]"})),
            ("vocab.txt", json!("")),
        ];
        let gpt2 = [
            (
                "config.json",
                json!({"model_type": "gpt2", "task_specific_params": {"text-generation": {"do_sample": true}}}),
            ),
            (
                "generation_config.json",
                json!({"_from_model_config": true, "bos_token_id": 50256, "eos_token_id": 50256}),
            ),
            ("tokenizer_config.json", json!({"model_max_length": 1024})),
            (
                "tokenizer.json",
                json!({"post_processor": {"type": "ByteLevel", "trim_offsets": true}}),
            ),
        ];
        assert_eq!(notes(&roberta), Vec::<String>::new());
        assert_eq!(notes(&bert), Vec::<String>::new());
        assert_eq!(notes(&gpt2), Vec::<String>::new());
        assert_eq!(notes(&[]), Vec::<String>::new());
        // An adapter folder without a model has no notes.
        assert_eq!(
            notes(&[("adapter_config.json", json!({}))]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn ignored_contents_that_would_change_results_are_listed() {
        let bert = ("config.json", json!({"model_type": "bert"}));
        let gpt2 = ("config.json", json!({"model_type": "gpt2"}));
        let template = json!({"post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}});
        for (model, file, content, expected) in [
            (
                &bert,
                "adapter_config.json",
                json!({}),
                "adapter_config.json: is not read",
            ),
            (
                &bert,
                "modules.json",
                json!([]),
                "modules.json: is not read",
            ),
            (
                &bert,
                "tokenizer_config.json",
                json!({"auto_map": {"AutoTokenizer": ["x", null]}}),
                "tokenizer_config.json: `auto_map`",
            ),
            (
                &bert,
                "tokenizer_config.json",
                json!({"tokenizer_class": "MPNetTokenizer"}),
                "tokenizer_config.json: the tokenizer class `MPNetTokenizer`",
            ),
            (
                &bert,
                "tokenizer_config.json",
                json!({"init_inputs": ["x"]}),
                "tokenizer_config.json: `init_inputs`",
            ),
            (
                &gpt2,
                "generation_config.json",
                json!({"bad_words_ids": [[1]], "max_length": 50}),
                "generation_config.json: texts are generated without `bad_words_ids`, `max_length`",
            ),
            (
                &gpt2,
                "custom_generate/generate.py",
                json!(""),
                "custom_generate/generate.py: is not run",
            ),
            (
                &gpt2,
                "tokenizer.json",
                template,
                "tokenizer.json: its post_processor adds `<s>`",
            ),
        ] {
            let found = notes(&[model.clone(), (file, content)]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(expected), "{found:?}");
        }
        let code = json!({"model_type": "bert", "auto_map": {"AutoModel": "x.Y"}});
        let found = notes(&[("config.json", code)]);
        assert!(found[0].starts_with("config.json: `auto_map`"), "{found:?}");
        // Chat templates are used where there are conversations.
        let chat = ("tokenizer_config.json", json!({"chat_template": "x"}));
        assert_eq!(notes(&[gpt2, chat]), Vec::<String>::new());
        let older = json!({"model_type": "gpt2", "max_length": 20});
        assert!(notes(&[("config.json", older)])[0].contains("max_new_tokens"));
    }
}
