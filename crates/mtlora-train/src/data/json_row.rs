//! A row of a JSONL file.

use std::fmt;

use mtlora_models::messages::{needed_and_found, shown};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::rows::json_reason;

/// The object on a line of a JSONL file.
///
/// # Errors
/// What is wrong with the line: it is not an object, or the object has a key twice.
pub(crate) fn json_row(json: &str) -> Result<Map<String, Value>, String> {
    let object: Object = serde_json::from_str(json).map_err(|error| {
        let reason = json_reason(&error);
        if let Some((_, found)) = needed_and_found(&reason) {
            return format!(
                "not a JSON object but {found}; each row must be one object on one line"
            );
        }
        format!(
            "not a JSON object, at column {}: {reason}; each row must be one object on one line",
            error.column()
        )
    })?;
    match object.repeated {
        Some(key) => Err(format!(
            "the row has the key {} twice; remove one",
            shown(&key)
        )),
        None => Ok(object.values),
    }
}

/// A JSON object, and a key that occurs more than once in it. serde_json's own type keeps the last value of such a key
/// without an error.
struct Object {
    values: Map<String, Value>,
    repeated: Option<String>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
                let mut object = Object {
                    values: Map::new(),
                    repeated: None,
                };
                while let Some((key, value)) = entries.next_entry::<String, Value>()? {
                    if object.values.insert(key.clone(), value).is_some() {
                        object.repeated.get_or_insert(key);
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_no_object_is_called_what_it_is() {
        for (row, reason) in [
            ("[1, 2]", "not a JSON object but a list; each row"),
            ("3", "not a JSON object but 3; each row"),
            ("\"a\"", "not a JSON object but the text \"a\"; each row"),
            ("null", "not a JSON object but null; each row"),
            ("{\"a\": }", "not a JSON object, at column 7: "),
        ] {
            let said = json_row(row).err().unwrap_or_default();
            assert!(said.starts_with(reason), "{row}: {said}");
        }
    }
}
