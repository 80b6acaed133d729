//! The JSON schemas of the TOML files, and the check of such files.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use common::{json, refused, text, text_reading};

/// Whether a value has a schema; `None` if the schema has a keyword that this check does not know.
fn fits(root: &Value, schema: &Value, value: &Value) -> Option<bool> {
    let mut all = true;
    for (keyword, is) in schema.as_object()? {
        all &= match keyword.as_str() {
            "$schema" | "title" | "description" | "definitions" => true,
            "$ref" => {
                let pointer = is.as_str()?.strip_prefix('#')?;
                fits(root, root.pointer(pointer)?, value)?
            }
            "type" => match is.as_str()? {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "number" => value.is_number(),
                "integer" => value.is_i64(),
                _ => return None,
            },
            "enum" => is.as_array()?.contains(value),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| Some(number) >= is.as_f64()),
            "exclusiveMinimum" => value
                .as_f64()
                .is_none_or(|number| Some(number) > is.as_f64()),
            "exclusiveMaximum" => value
                .as_f64()
                .is_none_or(|number| Some(number) < is.as_f64()),
            "maximum" => value
                .as_f64()
                .is_none_or(|number| Some(number) <= is.as_f64()),
            "minItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 >= is.as_u64().unwrap()),
            "minProperties" => value
                .as_object()
                .is_none_or(|table| table.len() as u64 >= is.as_u64().unwrap()),
            "uniqueItems" => {
                let items = value.as_array()?;
                items
                    .iter()
                    .enumerate()
                    .all(|(at, item)| !items[..at].contains(item))
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items
                    .map(|item| fits(root, is, item))
                    .collect::<Option<Vec<_>>>()?
                    .into_iter()
                    .all(|one| one)
            }
            "required" => {
                let table = value.as_object();
                is.as_array()?
                    .iter()
                    .all(|key| table.is_some_and(|table| table.contains_key(key.as_str().unwrap())))
            }
            "not" => !fits(root, is, value)?,
            "allOf" => {
                let parts = is.as_array()?.iter();
                parts
                    .map(|part| fits(root, part, value))
                    .collect::<Option<Vec<_>>>()?
                    .into_iter()
                    .all(|one| one)
            }
            "properties" | "additionalProperties" => of_properties(root, schema, keyword, value)?,
            _ => return None,
        };
    }
    Some(all)
}

fn of_properties(root: &Value, schema: &Value, keyword: &str, value: &Value) -> Option<bool> {
    let none = Map::new();
    let known = schema["properties"].as_object().unwrap_or(&none);
    let mut all = true;
    for (key, value) in value.as_object().unwrap_or(&none) {
        all &= match (keyword, known.get(key), &schema["additionalProperties"]) {
            ("properties", Some(schema), _) => fits(root, schema, value)?,
            ("properties", None, _) | (_, Some(_), _) => true,
            (_, None, Value::Bool(allowed)) => *allowed,
            (_, None, schema) => fits(root, schema, value)?,
        };
    }
    Some(all)
}

fn schema(kind: &str) -> Value {
    let text = text_reading(&["config", "schema", kind], "");
    let schema: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema, json(&["config", "schema", kind]));
    schema
}

fn accepts(schema: &Value, toml: &str) -> bool {
    let table: toml::Table = toml.parse().unwrap();
    fits(schema, schema, &serde_json::to_value(table).unwrap()).unwrap()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "{folder}");
    found
}

#[test]
fn schemas_accept_all_recipes_and_refuse_what_the_program_refuses() {
    let recipes = ["roberta-base", "gpt2-medium", "smollm2-135m", "qwen3-0.6b"];
    let recipes: Vec<PathBuf> = recipes
        .iter()
        .flat_map(|model| files(&format!("src/cli/settings/recipes/{model}")))
        .collect();
    let settings = schema("settings");
    for (kind, files) in [("sweep", files("recipes")), ("recipe", recipes)] {
        let schema = schema(kind);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            assert!(accepts(&schema, &text), "{}", file.display());
            let checked = json(&["config", "check", file.to_str().unwrap()]);
            assert_eq!(checked["files"][0]["kind"], kind);
            assert!(
                !accepts(&schema, &format!("x = 1\n{text}")),
                "{}",
                file.display()
            );
            for (from, to) in [
                ("lr = ", "lt = "),
                ("batch = ", "batch = 0.5 #"),
                ("epochs = ", "epochs = -1 #"),
            ] {
                let wrong = text.replacen(from, to, 1);
                assert!(
                    wrong == text || !accepts(&schema, &wrong),
                    "{}: {to}",
                    file.display()
                );
            }
            assert!(!accepts(&settings, &text), "{}", file.display());
        }
    }
    let recipe = text_reading(&["recipes", "roberta-base/mrpc"], "");
    assert!(accepts(&settings, &recipe));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    for (line, is_right) in [
        ("structure = \"icfm\"", true),
        ("structure = \"icmf\"", false),
        ("labels = [\"a, b\", \"c\"]", true),
        ("labels = \"a\"", false),
        ("init_r = 12", true),
        ("alpha = 16", true),
        ("alpha = \"16\"", false),
        ("rank = 8.5", false),
        ("metric_for_best_model = \"token_accuracy\"", true),
        ("lr_scheduler_type = \"cosine\"\nbatch = 8", true),
        ("batch = 8\nbatch_tokens = 100", false),
        ("batch-tokens = 100", false),
    ] {
        fs::write(&file, line).unwrap();
        assert_eq!(accepts(&settings, line), is_right, "{line}");
        let output = common::mtlora(&["config", "check", text(&file)]);
        assert_eq!(output.status.success(), is_right, "{line}");
    }
}

#[test]
fn mistakes_are_named_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    for (content, place, message) in [
        ("lr = 1e-3\nepcohs = 3\n", "2:1", "unknown field `epcohs`"),
        (
            "lr = 1e-3\n  rank = \"8\"\n",
            "2:10",
            "`rank` must be a whole number, 0 or more, not the text \"8\"",
        ),
        ("lr = 1e-3\nrank = \n", "2:8", ""),
        (
            "epochs = 3\nlr = 0.0\n",
            "2:1",
            "lr must be a positive number",
        ),
        (
            "batch_tokens = 0\n",
            "1:1",
            "batch_tokens must be at least 1",
        ),
        ("rank = 1\ntask = \"cula\"\n", "2:1", "cula"),
        (
            "num_beams = 3\ntask = \"cola\"\n",
            "2:1",
            "only data-to-text tasks have num_beams",
        ),
        (
            "about = \"x\"\n[settings]\npatience = 0\n",
            "3:1",
            "patience must be at least 1",
        ),
        (
            "seeds = [1]\n[tasks.cola]\n[arms.a]\nstructure = \"lora\"\nepochs = 0\n",
            "3:7",
            "epochs must be at least 1",
        ),
        (
            "seeds = [1]\n[tasks.cola]\n[arms.a]\nrang = 2\n",
            "4:1",
            "unknown field `rang`",
        ),
    ] {
        fs::write(&file, content).unwrap();
        let said = refused(&["config", "check", text(&file)]);
        assert!(
            said.contains(&format!("wrong.toml:{place}: ")),
            "{content}: {said}"
        );
        assert!(said.contains(message), "{content}: {said}");
    }
    // All mistakes of a file are named at once, by `train` too.
    let text_of_all = "task = \"cula\"\nlr = \"2e-3\"\nepochs = 1.5\nbatch_size = 8\nout = \"x\"\n";
    fs::write(&file, text_of_all).unwrap();
    for command in [&["config", "check"][..], &["train", "--config"]] {
        let said = refused(&[command, &[text(&file)]].concat());
        for (place, message) in [
            ("1:1", "unknown task `cula`"),
            ("2:6", "`lr` must be a number"),
            ("3:10", "`epochs` must be a whole number"),
            ("4:1", "unknown field `batch_size`: did you mean `batch`?"),
            (
                "5:1",
                "`out` is given on the command line (--out), not in a file",
            ),
        ] {
            let expected = format!("wrong.toml:{place}: {message}");
            assert!(said.contains(&expected), "{expected}: {said}");
        }
    }
    // What a recipe, a settings file and a sweep need.
    fs::write(&file, "[settings]\nlr = 1e-3\n").unwrap();
    let said = refused(&["config", "check", text(&file)]);
    assert!(
        said.contains("a file with the table [settings] is a recipe"),
        "{said}"
    );
    // What has no effect is noted.
    fs::write(&file, "method = \"full\"\nlr = 1e-3\nrank = 8\n").unwrap();
    let output = common::mtlora(&["config", "check", text(&file)]);
    assert!(output.status.success());
    let note = String::from_utf8(output.stderr).unwrap();
    let expected = "wrong.toml:3:1: method full has no adapter, so rank has no effect";
    assert!(note.contains(expected), "{note}");
    // All files are checked, and `train` names the place too.
    let right = folder.path().join("right.toml");
    fs::write(&right, "lr = 1e-3\n").unwrap();
    fs::write(&file, "\nx = 1\n").unwrap();
    let both = [text(&file), text(&right)];
    let output = common::mtlora(&["config", "check", both[0], both[1]]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("right.toml is valid: a settings file")
    );
    let said = refused(&["train", "--config", both[0]]);
    assert!(said.contains("wrong.toml:2:1: unknown field `x`"), "{said}");
}
