//! Reads and checks the fields of a config.json.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::layers::activation::Activation;
use crate::messages::{listed, shown};

/// The largest dropout probability that is accepted; 1 would drop everything.
pub(crate) const MAX_DROPOUT: f64 = 0.999;

/// The fields of one file, with the context that error messages need.
pub(crate) struct Fields<'a> {
    pub path: &'a Path,
    pub text: &'a str,
    pub map: &'a Map<String, Value>,
}

impl Fields<'_> {
    /// A field's value. `null` counts as absent, as it does in transformers.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn wrong(&self, field: &str, message: String) -> ModelError {
        // The JSON parser does not keep positions, so the line is certain only if the name occurs once in the text.
        let quoted = format!("\"{field}\"");
        let mut places = self.text.match_indices(&quoted).map(|(at, _)| at);
        let line = match (places.next(), places.next()) {
            (Some(at), None) => self
                .text
                .get(..at)
                .map(|before| before.bytes().filter(|&byte| byte == b'\n').count() + 1),
            _ => None,
        };
        ModelError::Field {
            path: self.path.to_path_buf(),
            line,
            field: field.to_string(),
            message,
        }
    }

    pub(crate) fn missing(&self, field: &'static str, wanted: &'static str) -> ModelError {
        ModelError::MissingField {
            path: self.path.to_path_buf(),
            field,
            wanted,
        }
    }

    pub(crate) fn whole(
        &self,
        field: &str,
        value: &Value,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let message = format!(
                    "is {}, but must be a whole number from {} to {}",
                    brief(value),
                    range.start(),
                    range.end()
                );
                self.wrong(field, message)
            })
    }

    pub(crate) fn size(
        &self,
        field: &'static str,
        wanted: &'static str,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        let value = self.get(field).ok_or_else(|| self.missing(field, wanted))?;
        self.whole(field, value, range)
    }

    pub(crate) fn size_or(
        &self,
        field: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        match self.get(field) {
            Some(value) => self.whole(field, value, range),
            None if range.contains(&default) => Ok(default),
            None => self.whole(field, &json!(default), range),
        }
    }

    pub(crate) fn number(
        &self,
        field: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(
                field,
                format!(
                    "is {}, but must be a number from {} to {}",
                    brief(value),
                    range.start(),
                    range.end()
                ),
            )),
        }
    }

    pub(crate) fn flag_or(&self, field: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(value) => {
                let message = format!("is {}, but must be true or false", brief(value));
                Err(self.wrong(field, message))
            }
        }
    }

    /// The activation function that `field` names; `default` if it is absent.
    pub(crate) fn activation(
        &self,
        field: &str,
        default: Activation,
    ) -> Result<Activation, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(default);
        };
        value
            .as_str()
            .and_then(Activation::from_name)
            .ok_or_else(|| {
                let known = Activation::NAMES.map(|(name, _)| name);
                let message = format!("is {}, but must be one of {}", brief(value), listed(&known));
                self.wrong(field, message)
            })
    }

    /// Refuses settings that change the model in transformers for every architecture and are not supported here.
    pub(crate) fn refuse_other_models(&self) -> Result<(), ModelError> {
        for (field, what) in [
            (
                "quantization_config",
                "says that the weights are quantized, which is not supported; use the original model (--base-dtype \
                 keeps it \
                 in fewer bits)",
            ),
            (
                "per_layer_config",
                "gives single layers a size of their own, which is not supported; use a model whose layers all have \
                 the same size",
            ),
        ] {
            if self.get(field).is_some() {
                return Err(self.wrong(field, what.to_string()));
            }
        }
        Ok(())
    }

    pub(crate) fn strings(&self, field: &str) -> Result<Vec<String>, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(Vec::new());
        };
        value
            .as_array()
            .and_then(|values| {
                let strings = values
                    .iter()
                    .map(|value| value.as_str().map(str::to_string));
                strings.collect::<Option<Vec<_>>>()
            })
            .ok_or_else(|| {
                let message = format!("is {}, but must be a list of names", brief(value));
                self.wrong(field, message)
            })
    }
}

/// A JSON value in the form that messages show.
pub(crate) fn brief(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Object(map) => format!("an object of {} fields", map.len()),
        Value::String(text) => shown(text),
        other => shown(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_without_quotation_marks_of_their_own() {
        assert_eq!(brief(&json!("")), "``");
        assert_eq!(brief(&json!("swish")), "`swish`");
        assert_eq!(brief(&json!(3)), "`3`");
    }
}
