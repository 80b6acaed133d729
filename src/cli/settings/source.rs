//! The text of a TOML file with settings or a sweep, and errors that name a place in it.

use std::ops::Range;
use std::path::Path;

use mtlora::train::read_text_file;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, ValueDeserializer};

use crate::cli::settings::flags::{EXCLUSIVE, Settings};
use crate::cli::settings::message;

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

    /// What is wrong with a value that a key cannot have.
    pub(crate) fn of_value(&self, key: &str, error: &toml::de::Error, otherwise: usize) -> String {
        self.of_toml_at(error, otherwise, |message| message::of_value(key, message))
    }

    fn of_toml(&self, error: &toml::de::Error, otherwise: usize) -> String {
        self.of_toml_at(error, otherwise, message::plain)
    }

    fn of_toml_at(
        &self,
        error: &toml::de::Error,
        otherwise: usize,
        said: impl FnOnce(&str) -> String,
    ) -> String {
        let at = error.span().map_or(otherwise, |span| span.start);
        self.error(at, said(error.message()))
    }
}

/// What is wrong with a file: the place and the message of each mistake.
#[derive(Default)]
pub(crate) struct Mistakes(Vec<(usize, String)>);

impl Mistakes {
    /// Adds one; `line` is its whole message, with the place.
    pub(crate) fn add(&mut self, at: usize, line: String) {
        self.0.push((at, line));
    }

    /// Adds those of a part of the file.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Keeps what was read, or adds the mistake in it and returns the default.
    pub(crate) fn keep<T: Default>(&mut self, at: usize, read: Result<T, String>) -> T {
        read.unwrap_or_else(|line| {
            self.add(at, line);
            T::default()
        })
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them in the order of the file, one line each.
    ///
    /// # Errors
    /// If there are any.
    pub(crate) fn into_result(mut self) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort();
        let lines: Vec<String> = self.0.into_iter().map(|(_, line)| line).collect();
        Err(lines.join("\n"))
    }
}

impl<'a> Entries<'a> {
    /// A table without entries.
    pub(crate) fn none(source: &'a Source) -> Self {
        Self {
            source,
            at: 0..0,
            table: DeTable::new(),
        }
    }

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
    /// If some are not settings, or have values that they cannot have; the message has a line for each.
    pub(crate) fn settings(self) -> Result<Settings, String> {
        let (settings, mistakes) = self.settings_with_mistakes();
        mistakes.into_result()?;
        Ok(settings)
    }

    /// The remaining entries that are settings of `mtlora train`, and what is wrong with the others.
    pub(crate) fn settings_with_mistakes(self) -> (Settings, Mistakes) {
        let Self { source, at, table } = self;
        let mut mistakes = Mistakes::default();
        let mut places: Vec<(String, usize)> = Vec::new();
        let mut correct = DeTable::new();
        let read =
            |table| Settings::deserialize(Deserializer::from(Spanned::new(at.clone(), table)));
        // Read at once, the first mistake would hide the others.
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let (place, value_at) = (key.span().start, value.span().start);
            places.push((name.clone(), place));
            let mut one = DeTable::new();
            one.insert(key.clone(), value.clone());
            match read(one) {
                Ok(_) => {
                    correct.insert(key, value);
                }
                Err(error) => {
                    let is_unknown = message::is_of_unknown_field(error.message());
                    let otherwise = if is_unknown { place } else { value_at };
                    mistakes.add(place, source.of_value(&name, &error, otherwise));
                }
            }
        }
        for group in EXCLUSIVE {
            let given = places
                .iter()
                .filter(|(key, _)| group.contains(&key.as_str()));
            let given: Vec<usize> = given.map(|(_, at)| *at).collect();
            if let (true, [one, other, ..], Some(last)) =
                (given.len() > 1, group, given.iter().max())
            {
                let message =
                    format!("has both {one} and {other}, which exclude each other: remove one");
                mistakes.add(*last, source.error(*last, message));
            }
        }
        let settings = read(correct).unwrap_or_else(|error| {
            mistakes.add(at.start, source.of_toml(&error, at.start));
            Settings::default()
        });
        (settings, mistakes)
    }

    /// Refuses what was not taken out.
    ///
    /// # Errors
    /// If there is something; the message lists the `known` keys.
    pub(crate) fn finish(self, known: &[&str]) -> Result<(), String> {
        let source = self.source;
        let mut mistakes = Mistakes::default();
        for (key, at, _) in self.rest() {
            let meant = match message::most_similar(&key, known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`? There are"),
                None => "one of".to_string(),
            };
            let known = known.join(", ");
            let line = source.error(at, format!("unknown key `{key}`: {meant} {known}"));
            mistakes.add(at, line);
        }
        mistakes.into_result()
    }
}
