//! Decodes text files. Every reader of text goes through here, so that encodings are handled in one place.

use std::io::Read;
use std::path::Path;
use std::{fs, io};

use crate::data::error::DataError;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_LITTLE: &[u8] = b"\xff\xfe";
const UTF16_BIG: &[u8] = b"\xfe\xff";
/// The byte order marks of UTF-32. They must be checked before those of UTF-16, because one begins with the other.
const UTF32: [&[u8]; 2] = [b"\xff\xfe\0\0", b"\0\0\xfe\xff"];

/// The text in a file, without a byte order mark: UTF-8, or UTF-16 with a mark.
///
/// # Errors
/// [`DataError::NotFound`], [`DataError::Io`], [`DataError::Utf8`], [`DataError::Encoding`].
pub fn read_text_file(path: &Path) -> Result<String, DataError> {
    read_text(path, || "check its name".to_string())
}

/// Like [`read_text_file`], with a hint for the case that the file does not exist.
///
/// # Errors
/// As [`read_text_file`].
pub(crate) fn read_text(path: &Path, hint: impl FnOnce() -> String) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DataError::NotFound {
            path: path.to_path_buf(),
            hint: hint(),
        },
        _ => DataError::io(path, error),
    })?;
    decode_text(path, bytes)
}

/// Like [`read_text_file`], from a stream; `name` is used only in messages.
///
/// # Errors
/// [`DataError::Io`], and the errors of [`decode_text`].
pub(crate) fn read_text_from(name: &Path, mut stream: impl Read) -> Result<String, DataError> {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .map_err(|error| DataError::io(name, error))?;
    decode_text(name, bytes)
}

/// Decodes the bytes of the file `name`: UTF-8 with or without a byte order mark, or UTF-16 with one. The mark is not
/// part of the text.
///
/// # Errors
/// [`DataError::Encoding`] for UTF-32, for UTF-16 without a mark and for invalid UTF-16, and [`DataError::Utf8`] for
/// all other bytes.
pub(crate) fn decode_text(name: &Path, mut bytes: Vec<u8>) -> Result<String, DataError> {
    let wrong = |message: &str| DataError::Encoding {
        path: name.to_path_buf(),
        line: 1,
        message: message.to_string(),
    };
    if UTF32.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(wrong("is UTF-32; save it as UTF-8"));
    }
    for (mark, unit) in [
        (UTF16_LITTLE, u16::from_le_bytes as fn([u8; 2]) -> u16),
        (UTF16_BIG, u16::from_be_bytes),
    ] {
        if let Some(units) = bytes.strip_prefix(mark) {
            let (pairs, rest) = units.as_chunks::<2>();
            if !rest.is_empty() {
                return Err(wrong(
                    "is UTF-16, but ends in the middle of a character; save it as UTF-8",
                ));
            }
            return utf16(name, pairs.iter().map(|pair| unit(*pair)));
        }
    }
    if bytes.starts_with(UTF8_MARK) {
        bytes.drain(..UTF8_MARK.len());
    }
    if looks_like_utf16(&bytes) {
        return Err(wrong(
            "looks like UTF-16 without a byte order mark, because many of its bytes are zero; save it as UTF-8",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(valid);
        DataError::Utf8 {
            path: name.to_path_buf(),
            line: 1 + before.filter(|&&byte| byte == b'\n').count(),
        }
    })
}

fn utf16(name: &Path, units: impl Iterator<Item = u16>) -> Result<String, DataError> {
    let mut text = String::new();
    let mut line = 1;
    for unit in char::decode_utf16(units) {
        let Ok(character) = unit else {
            return Err(DataError::Encoding {
                path: name.to_path_buf(),
                line,
                message: "is UTF-16 with an incomplete character; save it as UTF-8".to_string(),
            });
        };
        line += usize::from(character == '\n');
        text.push(character);
    }
    Ok(text)
}

/// Whether many byte pairs at the beginning have a zero in the same position. This is typical of Latin letters in
/// UTF-16, even among other characters.
fn looks_like_utf16(bytes: &[u8]) -> bool {
    let (pairs, _) = bytes
        .get(..bytes.len().min(256))
        .unwrap_or_default()
        .as_chunks::<2>();
    let zeros = |which: usize| pairs.iter().filter(|pair| pair[which] == 0).count();
    pairs.len() >= 2 && 3 * zeros(0).max(zeros(1)) >= pairs.len()
}

/// All lines of a text, numbered from 1, without their line endings (`\n` or `\r\n`).
pub(crate) fn numbered_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    // `str::lines` splits at exactly these two line endings.
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decode(bytes: &[u8]) -> Result<String, String> {
        decode_text(Path::new("t.txt"), bytes.to_vec()).map_err(|error| error.to_string())
    }

    fn utf16_bytes(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    /// The expected values are those of Python's `open(..., encoding="utf-8-sig")` and `encoding="utf-16"`.
    #[test]
    fn byte_order_marks_are_not_part_of_the_text() {
        let text = "tea, thé, 茶 🍵\r\nsecond";
        let little = [UTF16_LITTLE, &utf16_bytes(text, u16::to_le_bytes)].concat();
        let big = [UTF16_BIG, &utf16_bytes(text, u16::to_be_bytes)].concat();
        let marked = [UTF8_MARK, text.as_bytes()].concat();
        for bytes in [text.as_bytes(), &marked, &little, &big] {
            assert_eq!(decode(bytes).unwrap(), text);
        }
        // Only the first one is a byte order mark.
        assert_eq!(decode(b"\xef\xbb\xbf\xef\xbb\xbfx").unwrap(), "\u{feff}x");
        assert_eq!(decode(b"").unwrap(), "");
        // A single zero byte in a text is a character.
        assert_eq!(decode(b"fine\n\0 text").unwrap(), "fine\n\0 text");
        assert_eq!(decode(UTF8_MARK).unwrap(), "");
        assert_eq!(decode(UTF16_LITTLE).unwrap(), "");
    }

    #[test]
    fn unsupported_encodings_are_refused_by_name() {
        let words = "two words";
        let cases: [(Vec<u8>, &str); 10] = [
            (
                utf16_bytes("It’s fine", u16::to_le_bytes),
                "t.txt:1: looks like UTF-16 without",
            ),
            (
                utf16_bytes("“茶” is tea", u16::to_be_bytes),
                "t.txt:1: looks like UTF-16 without",
            ),
            (
                utf16_bytes(words, u16::to_le_bytes),
                "t.txt:1: looks like UTF-16",
            ),
            (
                utf16_bytes(words, u16::to_be_bytes),
                "t.txt:1: looks like UTF-16",
            ),
            (b"\xff\xfe\0\0t\0\0\0".to_vec(), "t.txt:1: is UTF-32"),
            (b"\0\0\xfe\xff\0\0\0t".to_vec(), "t.txt:1: is UTF-32"),
            (
                b"\xff\xfet\0w".to_vec(),
                "t.txt:1: is UTF-16, but ends in the middle",
            ),
            (
                b"\xff\xfet\0\n\0\x00\xd8x\0".to_vec(),
                "t.txt:2: is UTF-16 with an incomplete",
            ),
            (b"fine\nthen \xe9\n".to_vec(), "t.txt:2: invalid UTF-8"),
            (b"\xef\xbb\xbf\xff".to_vec(), "t.txt:1: invalid UTF-8"),
        ];
        for (bytes, message) in cases {
            let error = decode(&bytes).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn lines_are_those_of_an_editor() {
        let lines = |text: &'static str| numbered_lines(text).collect::<Vec<_>>();
        assert_eq!(
            lines("a\r\n\nb\u{2028}c\n"),
            [(1, "a"), (2, ""), (3, "b\u{2028}c")]
        );
        assert_eq!(lines(""), []);
    }

    #[test]
    fn streams_are_read_to_their_end() {
        let text = read_text_from(Path::new("standard input"), &b"\xef\xbb\xbfa\nb"[..]);
        assert_eq!(text.unwrap(), "a\nb");
        let missing = read_text_file(Path::new("no/such/file.txt")).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("no/such/file.txt: no such file")
        );
    }
}
