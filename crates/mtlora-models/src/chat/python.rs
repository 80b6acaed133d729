//! What Python gives to chat templates: its JSON, its white space, and methods of its strings.

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::pycompat;

/// Whether Python's `str.isspace` holds for a character.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

/// The filter `trim`, which removes Python's white space, or the given characters.
pub(super) fn trim(text: &Value, chars: Option<&str>) -> Result<String, Error> {
    let text = text.to_string();
    Ok(match chars {
        None => text.trim_matches(is_space).to_string(),
        Some(chars) => text.trim_matches(|one| chars.contains(one)).to_string(),
    })
}

/// Writes a value into the text. Only floating-point numbers differ from what the engine does.
pub(super) fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.kind() == ValueKind::Number && !value.is_integer() {
        return escape_formatter(out, state, &Value::from(number(value)));
    }
    escape_formatter(out, state, value)
}

/// The methods of Python's strings, lists and dictionaries that the engine lacks.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return pycompat::unknown_method_callback(state, value, method, args);
    };
    match (method, args) {
        ("strip", []) => Ok(Value::from(text.trim_matches(is_space))),
        ("lstrip", []) => Ok(Value::from(text.trim_start_matches(is_space))),
        ("rstrip", []) => Ok(Value::from(text.trim_end_matches(is_space))),
        ("removeprefix", _) => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        ("removesuffix", _) => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// How `json.dumps` writes: between items, after keys, indented by.
struct JsonStyle {
    item: String,
    key: String,
    indent: Option<String>,
    ascii: bool,
    sorted: bool,
}

/// The filter `tojson` of transformers: `json.dumps(x, ensure_ascii, indent, separators, sort_keys)`. It escapes nothing
/// for HTML.
pub(super) fn to_json(
    value: &Value,
    ensure_ascii: Option<bool>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let ascii = kwargs.get::<Option<bool>>("ensure_ascii")?;
    let indent = kwargs.get::<Option<Value>>("indent")?;
    let indent = indent.filter(|indent| !indent.is_none() && !indent.is_undefined());
    let indent = match indent {
        None => None,
        Some(text) if text.kind() == ValueKind::String => Some(text.to_string()),
        Some(count) => Some(" ".repeat(usize::try_from(count)?.min(80))),
    };
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let sorted = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "separators must be two texts",
            ));
        }
    };
    let style = JsonStyle {
        item,
        key,
        indent,
        ascii: ascii.or(ensure_ascii).unwrap_or(false),
        sorted,
    };
    let mut text = String::new();
    style.write(value, 0, &mut text)?;
    Ok(Value::from(text))
}

impl JsonStyle {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Map => {
                let mut items = Vec::new();
                for key in value.try_iter()? {
                    let item = value.get_item(&key)?;
                    items.push((json_key(&key)?, item));
                }
                if self.sorted {
                    items.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.list(items.len(), depth, ['{', '}'], out, |index, out| {
                    let Some((key, item)) = items.get(index) else {
                        return Ok(());
                    };
                    self.text(key, out);
                    out.push_str(&self.key);
                    self.write(item, depth + 1, out)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(
                    items.len(),
                    depth,
                    ['[', ']'],
                    out,
                    |index, out| match items.get(index) {
                        Some(item) => self.write(item, depth + 1, out),
                        None => Ok(()),
                    },
                )?;
            }
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("a value of type {other} cannot be written as JSON"),
                ));
            }
        }
        Ok(())
    }

    fn list(
        &self,
        count: usize,
        depth: usize,
        [open, close]: [char; 2],
        out: &mut String,
        mut each: impl FnMut(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        for index in 0..count {
            if index > 0 {
                out.push_str(&self.item);
            }
            line(depth + 1, out);
            each(index, out)?;
        }
        if count > 0 {
            line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                one if one < ' '
                    || (self.ascii && !one.is_ascii())
                    || (self.ascii && one == '\u{7f}') =>
                {
                    let mut units = [0; 2];
                    for unit in one.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                one => out.push(one),
            }
        }
        out.push('"');
    }
}

/// A key of a dictionary, which in JSON is always a text.
fn json_key(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_string()),
        ValueKind::Number => Ok(number(key)),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_string()),
        ValueKind::None => Ok("null".to_string()),
        other => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("a key of type {other} cannot be written as JSON"),
        )),
    }
}

/// A number as `json.dumps` writes it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) => float(number),
        Err(_) => value.to_string(),
    }
}

/// A floating-point number as Python's `repr` writes it: the fewest digits that are read back as the same number, with an
/// exponent where that is below -4 or above 15.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_string();
    }
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_string();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') {
            plain
        } else {
            format!("{plain}.0")
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `strftime_now(format)`: the local time, in C's notation.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    write!(text, "{}", chrono::Local::now().format(format)).map_err(|_| {
        let message = format!("`{format}` is not a format of a date");
        Error::new(ErrorKind::InvalidOperation, message)
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The expected texts are `repr` of Python 3.12.
    #[test]
    fn numbers_are_written_as_python_does() {
        for (number, expected) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (-2.5e300, "-2.5e+300"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn white_space_is_pythons() {
        assert_eq!(trim(&Value::from("\u{1f} a\u{a0}"), None).unwrap(), "a");
        assert_eq!(trim(&Value::from("xaxx"), Some("x")).unwrap(), "a");
    }
}
