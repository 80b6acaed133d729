//! The flag for variables of chat templates.

use serde_json::{Map, Value};

/// Sets variables that a chat template knows, beside the conversation.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct VariablesArgs {
    /// Variables of the chat template as a JSON object, such as {"enable_thinking": false} for Qwen3.
    #[arg(long, value_name = "JSON", value_parser = parse)]
    chat_template_kwargs: Option<Map<String, Value>>,
}

fn parse(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

impl VariablesArgs {
    /// The variables that were given.
    pub(crate) fn variables(&self) -> Map<String, Value> {
        self.chat_template_kwargs.clone().unwrap_or_default()
    }

    /// Whether any were given.
    pub(crate) fn is_given(&self) -> bool {
        self.chat_template_kwargs.is_some()
    }
}
