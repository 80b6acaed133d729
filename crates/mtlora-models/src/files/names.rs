//! The names of the files in a model or adapter folder that several modules read or write.

/// The file's name in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// The name of the file that says what the adapter is.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// The tokenizer's file name in a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The settings of transformers' `generate`.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";
