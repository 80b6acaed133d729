//! The names of the files in a model or adapter folder that several modules read or write.

/// The file's name in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// The name of the file that says what the adapter is.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// The name of the file with an adapter's tensors.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The name of that file in folders from before safetensors. It is read if the other one is missing.
pub const ADAPTER_PICKLE_FILE: &str = "adapter_model.bin";
/// The tokenizer's file name in a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The settings of transformers' `generate`.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";
/// The model's chat template, in the language Jinja.
pub const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";
/// The folder with further chat templates.
pub const CHAT_TEMPLATE_FOLDER: &str = "additional_chat_templates";
