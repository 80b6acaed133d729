use std::error::Error;

use serde_json::json;

use crate::cli::console::output;

pub(crate) fn run(json: bool) -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = mtlora::core::devices()
        .into_iter()
        .map(|device| device.name)
        .collect();
    for (index, name) in names.iter().enumerate() {
        say!("{name}{}", if index == 0 { " (default)" } else { "" })?;
    }
    if json {
        output::json(&json!({ "devices": names }))?;
    }
    Ok(())
}
