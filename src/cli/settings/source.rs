//! The text of a TOML file with settings or a sweep, and errors that name a place in it.

use std::ops::Range;
use std::path::Path;

use mtlora::train::read_text_file;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, ValueDeserializer};

use crate::cli::settings::flags::Settings;

/// The text of a file with its name.
pub(crate) struct Source {
    name: String,
    text: String,
}

/// A table of the file, whose known keys are taken out one after the other.
pub(crate) struct Entries<'a> {
    source: &'a Source,
    /// Where the table is.
    pub(crate) at: Range<usize>,
    table: DeTable<'a>,
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        Ok(Self {
            name: path.display().to_string(),
            text: read_text_file(path).map_err(|error| error.to_string())?,
        })
    }

    /// A text that is not in a file, with a name for messages.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_string(),
            text: text.to_string(),
        }
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// `FILE:LINE:COLUMN: message`; both count from 1, and columns are characters.
    pub(crate) fn error(&self, at: usize, message: impl std::fmt::Display) -> String {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before[start..].chars().count() + 1;
        format!("{}:{line}:{column}: {message}", self.name)
    }

    /// The table of the whole file.
    ///
    /// # Errors
    /// If the text is not TOML.
    pub(crate) fn entries(&self) -> Result<Entries<'_>, String> {
        let root = DeTable::parse(&self.text).map_err(|error| self.of_toml(&error, 0))?;
        Ok(Entries {
            source: self,
            at: 0..0,
            table: root.into_inner(),
        })
    }

    /// Reads a value.
    ///
    /// # Errors
    /// If it is of another type.
    pub(crate) fn value<'a, T: Deserialize<'a>>(
        &self,
        value: Spanned<DeValue<'a>>,
    ) -> Result<T, String> {
        let at = value.span().start;
        T::deserialize(ValueDeserializer::from(value)).map_err(|error| self.of_toml(&error, at))
    }

    /// The text of a value as the file has it.
    pub(crate) fn written(&self, value: &Spanned<DeValue<'_>>) -> &str {
        self.text.get(value.span()).unwrap_or_default()
    }

    /// The entries of a value that must be a table.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn table<'a>(&'a self, value: Spanned<DeValue<'a>>) -> Result<Entries<'a>, String> {
        let at = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Ok(Entries {
                source: self,
                at,
                table,
            }),
            _ => Err(self.error(at.start, "a table is needed here")),
        }
    }

    fn of_toml(&self, error: &toml::de::Error, otherwise: usize) -> String {
        let at = error.span().map_or(otherwise, |span| span.start);
        self.error(at, shortened(error.message()))
    }
}

impl<'a> Entries<'a> {
    /// Takes a value out.
    pub(crate) fn take(&mut self, key: &str) -> Option<Spanned<DeValue<'a>>> {
        self.table.remove(key)
    }

    /// Takes out a value of some type.
    ///
    /// # Errors
    /// If it is of another type.
    pub(crate) fn take_as<T: Deserialize<'a>>(&mut self, key: &str) -> Result<Option<T>, String> {
        let source = self.source;
        self.take(key).map(|value| source.value(value)).transpose()
    }

    /// Takes out a table; an absent one is empty.
    ///
    /// # Errors
    /// If it is no table.
    pub(crate) fn take_table(&mut self, key: &str) -> Result<Entries<'a>, String> {
        let source = self.source;
        match self.take(key) {
            Some(value) => source.table(value),
            None => Ok(Entries {
                source,
                at: self.at.clone(),
                table: DeTable::new(),
            }),
        }
    }

    /// Whether there is such a key, and where.
    pub(crate) fn place_of(&self, key: &str) -> Option<usize> {
        let (key, _) = self.table.get_key_value(key)?;
        Some(key.span().start)
    }

    /// The remaining entries in the order of the file: name, place and value.
    pub(crate) fn rest(self) -> Vec<(String, usize, Spanned<DeValue<'a>>)> {
        let entries = self.table.into_iter();
        let mut all: Vec<_> = entries
            .map(|(key, value)| {
                let at = key.span().start;
                (key.into_inner().into_owned(), at, value)
            })
            .collect();
        all.sort_by_key(|(_, at, _)| *at);
        all
    }

    /// The remaining entries as settings of `mtlora train`.
    ///
    /// # Errors
    /// If one is not a setting, or has a value that it cannot have.
    pub(crate) fn settings(self) -> Result<Settings, String> {
        let Self { source, at, table } = self;
        let places: Vec<(String, usize)> = table
            .keys()
            .map(|key| (key.get_ref().to_string(), key.span().start))
            .collect();
        let root = Spanned::new(at.clone(), table);
        let settings = Settings::deserialize(Deserializer::from(root))
            .map_err(|error| source.of_toml(&error, at.start))?;
        match settings.excluding()? {
            Some((one, other)) => Err(source.error(
                place_of_last(&places, &[one, other]).unwrap_or(at.start),
                format!("has both {one} and {other}, which exclude each other: remove one"),
            )),
            None => Ok(settings),
        }
    }

    /// Refuses what was not taken out.
    ///
    /// # Errors
    /// If there is something; the message lists the `known` keys.
    pub(crate) fn finish(self, known: &[&str]) -> Result<(), String> {
        let source = self.source;
        match self.rest().into_iter().next() {
            Some((key, at, _)) => {
                let meant = match most_similar(&key, known.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`? There are"),
                    None => "one of".to_string(),
                };
                let known = known.join(", ");
                Err(source.error(at, format!("unknown key `{key}`: {meant} {known}")))
            }
            None => Ok(()),
        }
    }
}

/// A message about an unknown field, with the one that was probably meant, and without the list of all fields where it is as
/// long as that of the settings of `train`.
pub(crate) fn shortened(message: &str) -> String {
    let parts = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once("`, expected one of "));
    let Some((name, list)) = parts else {
        return message.to_string();
    };
    let known: Vec<&str> = list.split(", ").map(|one| one.trim_matches('`')).collect();
    let meant = most_similar(name, known.iter().copied());
    match (meant, known.len() <= LISTED) {
        (Some(meant), _) => format!("unknown field `{name}`: did you mean `{meant}`?"),
        (None, true) => message.to_string(),
        (None, false) => format!(
            "unknown field `{name}`: the fields are the options of `mtlora train --help`, with _ for -"
        ),
    }
}

/// The longest list of fields that a message repeats.
const LISTED: usize = 12;

/// The name that a mistyped one is likely to stand for.
fn most_similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = known.map(|one| (strsim::jaro_winkler(name, one), one));
    let best = close.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (best.0 > 0.8).then_some(best.1)
}

/// The last of the places that these keys have.
fn place_of_last(places: &[(String, usize)], keys: &[&str]) -> Option<usize> {
    let found = places
        .iter()
        .filter(|(key, _)| keys.contains(&key.as_str()));
    found.map(|(_, at)| *at).max()
}
