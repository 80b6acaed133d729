//! `mtlora config schema`: the JSON schemas (draft 7, which editors know best) of the TOML files.

use std::error::Error;

use clap::Args as _;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::cli::config::kind::Kind;
use crate::cli::console::output;
use crate::cli::settings::flags::{EXCLUSIVE, Settings};
use crate::cli::sweep::file::DECIDED;

/// Further names of settings, and the settings.
const ALIASES: [(&str, &str); 2] = [("init_r", "rank"), ("deltaT", "delta_t")];

pub(super) fn run(kind: Kind, json: bool) -> Result<(), Box<dyn Error>> {
    let schema = of(kind);
    if json {
        return Ok(output::json(&schema)?);
    }
    let text = serde_json::to_string_pretty(&schema)?;
    Ok(output::print(&format!("{text}\n"))?)
}

/// The schema of a kind of file.
pub(super) fn of(kind: Kind) -> Value {
    let settings = properties();
    let (title, mut schema) = match kind {
        Kind::Settings => (
            "Settings for `mtlora train --config`",
            of_settings(&settings),
        ),
        Kind::Recipe => ("A recipe of mtlora", of_recipe(&settings)),
        Kind::Sweep => ("A sweep for `mtlora sweep run`", of_sweep(&settings)),
    };
    if let Some(object) = schema.as_object_mut() {
        object.insert(
            "$schema".into(),
            json!("http://json-schema.org/draft-07/schema#"),
        );
        object.insert("title".into(), json!(title));
        if kind != Kind::Settings {
            object.insert("definitions".into(), Value::Object(settings));
        }
    }
    schema
}

/// The schema of each setting, with the text of the help.
fn properties() -> Map<String, Value> {
    let generator = SchemaSettings::draft07().into_generator();
    let root = generator.into_root_schema_for::<Settings>().to_value();
    let mut all = match root.get("properties") {
        Some(Value::Object(all)) => all.clone(),
        _ => Map::new(),
    };
    let command = Settings::augment_args(clap::Command::new("settings"));
    for (name, schema) in &mut all {
        let Some(schema) = schema.as_object_mut() else {
            continue;
        };
        // TOML has no null: what is not set is left out. Formats are names of Rust's types.
        schema.remove("format");
        if let Some(Value::Array(types)) = schema.get("type") {
            let first = types.first().cloned().unwrap_or_default();
            schema.insert("type".into(), first);
        }
        if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
            items.remove("format");
        }
        let flag = command.get_arguments().find(|flag| flag.get_id() == name);
        if let Some(help) = flag.and_then(clap::Arg::get_help) {
            schema.insert("description".into(), json!(help.to_string()));
        }
    }
    for (alias, name) in ALIASES {
        if let Some(schema) = all.get(name).cloned() {
            all.insert(alias.to_string(), schema);
        }
    }
    all
}

/// An object with no other properties than these.
fn closed(properties: Map<String, Value>) -> Value {
    let excluded: Vec<Value> = EXCLUSIVE
        .into_iter()
        .filter(|group| group.iter().all(|name| properties.contains_key(*name)))
        .map(|group| json!({ "not": { "required": group } }))
        .collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if let (Some(schema), false) = (schema.as_object_mut(), excluded.is_empty()) {
        schema.insert("allOf".into(), json!(excluded));
    }
    schema
}

/// An object with any keys, whose values have this schema.
fn named(schema: Value) -> Value {
    json!({ "type": "object", "additionalProperties": schema })
}

fn of_settings(settings: &Map<String, Value>) -> Value {
    closed(settings.clone())
}

/// The settings as references to the definitions of the schema.
fn references(settings: &Map<String, Value>) -> Map<String, Value> {
    let refer = |name: &String| {
        (
            name.clone(),
            json!({ "$ref": format!("#/definitions/{name}") }),
        )
    };
    settings.keys().map(refer).collect()
}

fn of_recipe(settings: &Map<String, Value>) -> Value {
    let mut schema = closed(object([
        ("about", text("What the recipe is for, on one line.")),
        (
            "starts_from",
            text("The recipe of the run whose adapter this one starts from."),
        ),
        ("settings", closed(references(settings))),
    ]));
    schema["required"] = json!(["about"]);
    schema
}

fn of_sweep(settings: &Map<String, Value>) -> Value {
    let mut free = references(settings);
    for (decided, _) in DECIDED {
        free.remove(decided);
    }
    let grid: Map<String, Value> = free
        .iter()
        .map(|(name, one)| {
            (
                name.clone(),
                json!({ "type": "array", "minItems": 1, "items": one }),
            )
        })
        .collect();
    let grid = json!({
        "type": "object", "properties": grid, "additionalProperties": false,
        "description": "The settings that are tuned, with the values that are tried.",
    });
    let mut layer = free.clone();
    layer.insert(
        "recipe".into(),
        text(
            "A recipe for the settings that this table does not set itself (see `mtlora recipes`).",
        ),
    );
    let mut task = layer.clone();
    task.extend(object([
        (
            "starts_from",
            text("Each arm starts with its own adapter for the task of this name, which comes before."),
        ),
        ("metric", text("The metric that tables show.")),
        ("score_split", text("The split that is scored.")),
        ("grid", grid.clone()),
    ]));
    let mut arm = layer.clone();
    arm.remove("task");
    arm.insert("grid".into(), grid.clone());
    arm.insert("tasks".into(), named(closed(layer.clone())));
    let seeds = |about: &str, least: usize| {
        json!({
            "type": "array", "minItems": least, "uniqueItems": true, "description": about,
            "items": { "type": "integer", "minimum": 0 },
        })
    };
    let mut schema = closed(object([
        ("about", text("What is compared, on one line.")),
        (
            "baseline",
            text("The arm that the others are compared with; by default the first."),
        ),
        ("seeds", seeds("The seeds of the runs that are scored.", 1)),
        (
            "tuning_seeds",
            seeds(
                "The seeds of the runs that choose the settings; needed where there is a grid.",
                0,
            ),
        ),
        (
            "select_on",
            json!({
                "type": "string", "enum": ["train", "dev"],
                "description": "Where settings are chosen: on a part of train that is held back (then dev is scored), or on dev \
                                (then test is scored).",
            }),
        ),
        (
            "held_back",
            json!({
                "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1,
                "description": "The share of the train split that chooses the settings.",
            }),
        ),
        (
            "threads",
            json!({ "type": "integer", "minimum": 1, "description": "The threads of each run." }),
        ),
        ("settings", closed(layer)),
        ("grid", grid),
        ("tasks", named(closed(task))),
        ("arms", named(closed(arm))),
        (
            "published",
            json!({
                "type": "array",
                "description": "Published results, which tables show beside the runs.",
                "items": {
                    "type": "object", "required": ["name", "source", "scores"], "additionalProperties": false,
                    "properties": {
                        "name": text("The name of the method."),
                        "source": text("Where the results were published."),
                        "scores": { "type": "object", "description": "The scores by task." },
                    },
                },
            }),
        ),
    ]));
    schema["required"] = json!(["seeds", "tasks", "arms"]);
    for table in ["tasks", "arms"] {
        schema["properties"][table]["minProperties"] = json!(1);
    }
    schema
}

fn text(about: &str) -> Value {
    json!({ "type": "string", "description": about })
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    let entries = entries.into_iter();
    entries
        .map(|(key, value)| (key.to_string(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::settings::recipe;
    use crate::cli::sweep::file;

    fn keys(schema: &Value) -> BTreeSet<&str> {
        let properties = schema["properties"].as_object().unwrap();
        properties.keys().map(String::as_str).collect()
    }

    #[test]
    fn the_schemas_have_the_keys_that_the_program_reads() {
        let settings = of(Kind::Settings);
        let command = Settings::augment_args(clap::Command::new("settings"));
        let mut known: BTreeSet<&str> = command
            .get_arguments()
            .map(|flag| flag.get_id().as_str())
            .collect();
        known.extend(ALIASES.map(|(alias, _)| alias));
        // A flag of all commands.
        known.insert("threads");
        assert_eq!(keys(&settings), known);
        let sweep = of(Kind::Sweep);
        assert_eq!(keys(&sweep), BTreeSet::from(file::KEYS));
        assert_eq!(keys(&of(Kind::Recipe)), BTreeSet::from(recipe::KEYS));
        // An arm's settings are those of a run, but for what the sweep decides.
        let arm = &sweep["properties"]["arms"]["additionalProperties"];
        let mut expected = known;
        for (decided, _) in DECIDED {
            assert!(expected.remove(decided));
        }
        expected.remove("task");
        expected.extend(["recipe", "grid", "tasks"]);
        assert_eq!(keys(arm), expected);
    }

    #[test]
    fn further_names_are_read_as_the_settings_that_they_stand_for() {
        for (alias, name) in ALIASES {
            let read = |key: &str| toml::from_str::<Settings>(&format!("{key} = 7")).unwrap();
            assert_eq!(read(alias), read(name), "{alias}");
        }
    }

    #[test]
    fn each_setting_has_one_type_and_the_text_of_the_help() {
        let schema = of(Kind::Settings);
        for (name, one) in schema["properties"].as_object().unwrap() {
            assert!(one["type"].is_string(), "{name}: {one}");
            assert!(
                one["description"]
                    .as_str()
                    .is_some_and(|text| text.len() > 10),
                "{name}"
            );
        }
        let at = |name: &str| schema["properties"][name].clone();
        assert_eq!(at("rank")["type"], "integer");
        assert_eq!(at("lr")["type"], "number");
        assert_eq!(at("labels")["items"]["type"], "string");
        assert_eq!(at("lr_scheduler_type")["enum"][0], "linear");
        assert!(
            at("structure")["enum"]
                .as_array()
                .unwrap()
                .contains(&json!("icfm"))
        );
        assert!(
            at("rank")["description"]
                .as_str()
                .unwrap()
                .contains("[default: 8;")
        );
    }
}
