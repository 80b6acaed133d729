//! The XML format of the WebNLG challenge, in which DART is also published:
//!
//! ```xml
//! <benchmark><entries>
//!   <entry category="Airport" eid="Id1" size="1">
//!     <modifiedtripleset><mtriple>Aarhus | leaderName | Jacob_Bundsgaard</mtriple></modifiedtripleset>
//!     <lex comment="good" lid="Id1">The leader of Aarhus is Jacob Bundsgaard.</lex>
//!   </entry>
//! </entries></benchmark>
//! ```
//!
//! Other elements are skipped. Only the five predefined entities of XML and character references are expanded, and no
//! function is recursive, so entities and deep nesting cannot exhaust memory.

use std::path::Path;

use mtlora_models::messages::shown;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::entry::{Entry, Text};
use super::linearise::one_line;
use crate::data::error::DataError;

/// An element that may be open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Benchmark,
    Entries,
    Entry,
    Triples,
    Triple,
    Lex,
    Other,
}

impl Element {
    /// The element `name` inside of `parent`, or `None` if it is not allowed there.
    fn of(parent: Option<Self>, name: &str) -> Option<Self> {
        Some(match (parent, name) {
            (None, "benchmark") => Self::Benchmark,
            (None, _) | (Some(Self::Triple | Self::Lex), _) => return None,
            (Some(Self::Benchmark), "entries") => Self::Entries,
            (Some(Self::Entries), "entry") => Self::Entry,
            (Some(Self::Entry), "modifiedtripleset") => Self::Triples,
            (Some(Self::Triples), "mtriple") => Self::Triple,
            (Some(Self::Entry), "lex") => Self::Lex,
            _ => Self::Other,
        })
    }
}

/// Counts the lines up to a byte. The byte must never decrease between calls.
struct Lines<'t> {
    text: &'t str,
    byte: usize,
    line: usize,
}

impl Lines<'_> {
    fn at(&mut self, byte: u64) -> usize {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        let byte = byte.clamp(self.byte, self.text.len());
        let passed = self.text.as_bytes().get(self.byte..byte);
        let newlines = passed.unwrap_or_default().iter().filter(|&&b| b == b'\n');
        self.line += newlines.count();
        self.byte = byte;
        self.line
    }
}

/// Parses the entries of a file.
///
/// # Errors
/// [`DataError::Row`] if the file is cut off, is not XML, or has another structure.
pub(super) fn entries(path: &Path, text: &str) -> Result<Vec<Entry>, DataError> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut lines = Lines {
        text,
        byte: 0,
        line: 1,
    };
    let mut open: Vec<(Element, usize)> = Vec::new();
    let mut entries = Vec::new();
    let mut entry = Entry::default();
    let mut comment = String::new();
    // This is the part of a triple or a text that has been read so far.
    let mut content = String::new();
    let mut rooted = false;
    loop {
        let line = lines.at(reader.buffer_position());
        let event = reader.read_event().map_err(|error| {
            let line = lines.at(reader.error_position());
            let message = format!("not valid XML: {error}; correct it, or download the file again");
            DataError::row(path, line, message)
        })?;
        let parent = open.last().map(|(element, _)| *element);
        let inside = matches!(parent, Some(Element::Triple | Element::Lex));
        match event {
            Event::Start(tag) => {
                let name = tag.name();
                let element = Element::of(parent, name.as_ref())
                    .ok_or_else(|| misplaced(path, line, name.as_ref(), parent.is_none()))?;
                rooted = true;
                content.clear();
                match element {
                    Element::Entry => {
                        entry = Entry {
                            category: attribute(path, line, &tag, "category")?,
                            ..Entry::default()
                        };
                    }
                    Element::Triples if !entry.triples.is_empty() => {
                        let message = "the entry has a second `modifiedtripleset`; remove one";
                        return Err(DataError::row(path, line, message));
                    }
                    Element::Lex => {
                        comment = attribute(path, line, &tag, "comment")?.unwrap_or_default();
                    }
                    _ => (),
                }
                open.push((element, line));
            }
            Event::End(_) => match open.pop() {
                Some((Element::Triple, line)) => {
                    entry.triples.push(triple(path, line, &content)?);
                }
                Some((Element::Lex, _)) => entry.texts.push(Text {
                    comment: std::mem::take(&mut comment),
                    text: std::mem::take(&mut content),
                }),
                Some((Element::Entry, line)) => {
                    if entry.triples.is_empty() {
                        let message =
                            "the entry has no `mtriple` in a `modifiedtripleset`; delete it";
                        return Err(DataError::row(path, line, message));
                    }
                    entries.push(std::mem::take(&mut entry));
                }
                _ => (),
            },
            Event::Text(text) if inside => content.push_str(&text.xml10_content()),
            Event::CData(text) if inside => content.push_str(&text.xml10_content()),
            Event::GeneralRef(entity) if inside => {
                content.push(resolve(&entity).ok_or_else(|| {
                    let name = shown(&entity);
                    let message = format!("unknown entity {name}; write the character itself");
                    DataError::row(path, line, message)
                })?);
            }
            Event::Text(text) if parent.is_none() && !text.trim().is_empty() => {
                let message =
                    "there is text outside of the root element; this is not the challenge's XML";
                return Err(DataError::row(path, line, message));
            }
            Event::Eof => break,
            _ => (),
        }
    }
    if let Some((_, line)) = open.last() {
        let message = format!(
            "the file is cut off: it ends inside of an element that line {line} opens; download it again"
        );
        return Err(DataError::row(path, lines.at(u64::MAX), message));
    }
    if !rooted {
        let message = "there is no element `benchmark`; this is not the challenge's XML";
        return Err(DataError::row(path, 1, message));
    }
    Ok(entries)
}

fn misplaced(path: &Path, line: usize, name: &str, root: bool) -> DataError {
    let name = shown(name);
    DataError::row(
        path,
        line,
        if root {
            format!(
                "the root is {name}, but should be `benchmark`; this is not the challenge's XML"
            )
        } else {
            format!(
                "the element {name} is inside of a triple or a text, which may contain only text; remove it"
            )
        },
    )
}

/// The value of an attribute, or `None` if the element does not have it.
fn attribute(
    path: &Path,
    line: usize,
    tag: &BytesStart<'_>,
    name: &str,
) -> Result<Option<String>, DataError> {
    let wrong = |why: String| {
        let message = format!("the attribute {}: {why}; correct it", shown(name));
        DataError::row(path, line, message)
    };
    let attribute = tag
        .try_get_attribute(name)
        .map_err(|error| wrong(error.to_string()))?;
    attribute
        .map(|attribute| {
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            value.map(|value| value.into_owned())
        })
        .transpose()
        .map_err(|error| wrong(error.to_string()))
}

/// The character that a reference stands for.
fn resolve(entity: &BytesRef<'_>) -> Option<char> {
    match entity.resolve_char_ref() {
        Ok(Some(character)) => Some(character),
        Ok(None) => resolve_predefined_entity(entity)?.chars().next(),
        Err(_) => None,
    }
}

/// Parses `subject | predicate | object`. White space inside of a part is kept, as in the published JSON.
fn triple(path: &Path, line: usize, content: &str) -> Result<[String; 3], DataError> {
    let content = one_line(content);
    let parts: Vec<&str> = content.split(" | ").collect();
    match parts.as_slice() {
        [subject, predicate, object] => Ok([*subject, *predicate, *object].map(String::from)),
        _ => {
            let message = format!(
                "{} does not have the form `subject | predicate | object`; correct the triple",
                shown(&content)
            );
            Err(DataError::row(path, line, message))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Vec<Entry>, DataError> {
        entries(Path::new("a.xml"), text)
    }

    fn wrapped(inside: &str) -> String {
        format!("<?xml version=\"1.0\"?>\n<benchmark>\n<entries>\n{inside}</entries>\n</benchmark>")
    }

    #[test]
    fn entries_are_read_whatever_else_there_is() {
        let text = wrapped(
            "<!-- c --><entry category='A&amp;B' eid='1'><originaltripleset><otriple>x</otriple>\
             <mtriple>no</mtriple></originaltripleset><modifiedtripleset>\n<mtriple>A_&lt;B&gt; | isIn | \"C\"</mtriple>\n\
             <mtriple>\n a | b |\n c\n</mtriple></modifiedtripleset><lex comment=\"good\">caf&#233; &amp;<![CDATA[ <b>]]></lex>\
             <lex/></entry>\n",
        );
        let expected = Entry {
            category: Some("A&B".into()),
            triples: vec![
                ["A_<B>", "isIn", "\"C\""].map(String::from),
                ["a", "b", "c"].map(String::from),
            ],
            texts: vec![
                Text {
                    comment: "good".into(),
                    text: "café & <b>".into(),
                },
                Text {
                    comment: String::new(),
                    text: String::new(),
                },
            ],
        };
        assert_eq!(read(&text).unwrap(), [expected]);
        assert_eq!(read("<benchmark/>").unwrap(), []);
    }

    #[test]
    fn an_error_says_on_which_line() {
        let triples =
            "<entry>\n<modifiedtripleset>\n<mtriple>a | b | c</mtriple></modifiedtripleset>";
        for (text, expected) in [
            ("", "a.xml:1: there is no element `benchmark`"),
            ("[{}]", "a.xml:1: there is text outside"),
            ("\n<html/>", "a.xml:2: the root is `html`"),
            (
                "<benchmark>\n<entries>\n",
                "a.xml:3: the file is cut off: it ends inside of an element that line 2 opens",
            ),
            (
                "<benchmark>\n<entries>\n</benchmark>",
                "a.xml:3: not valid XML",
            ),
            ("<benchmark>\n<entr", "a.xml:2: not valid XML"),
            (&wrapped("<entry/>"), "a.xml:4: the entry has no `mtriple`"),
            (
                &wrapped(&triples.replace(" | c", "")),
                "a.xml:6: `a | b` does not have the form `subject",
            ),
            (
                &wrapped(&format!("{triples}\n<lex>a <b>c</b></lex></entry>")),
                "a.xml:7: the element `b` is inside",
            ),
            (
                &wrapped(&format!("{triples}\n<lex>&lol;</lex></entry>")),
                "a.xml:7: unknown entity `lol`",
            ),
            (
                &wrapped(&format!("{triples}\n<lex>&#xD800;</lex></entry>")),
                "a.xml:7: unknown entity",
            ),
            (
                &wrapped(&format!("{triples}{}", &triples[7..])),
                "a.xml:7: the entry has a second",
            ),
            (
                &wrapped("<entry category='&x;'/>"),
                "a.xml:4: the attribute `category`",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(
                error.starts_with(expected),
                "{error} does not say {expected}"
            );
        }
    }

    #[test]
    fn neither_entities_nor_depth_blow_up() {
        let bomb = format!(
            "<!DOCTYPE benchmark [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;\">]>{}",
            wrapped(
                "<entry><modifiedtripleset><mtriple>&b; | b | c</mtriple></modifiedtripleset></entry>"
            )
        );
        let error = read(&bomb).unwrap_err().to_string();
        assert!(error.contains("unknown entity `b`"), "{error}");
        let deep = wrapped(&"<a>".repeat(500_000));
        assert!(read(&deep).is_err());
        let deep = wrapped(&format!(
            "{}{}",
            "<a>".repeat(500_000),
            "</a>".repeat(500_000)
        ));
        assert_eq!(read(&deep).unwrap(), []);
    }
}
