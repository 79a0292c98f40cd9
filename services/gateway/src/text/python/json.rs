//! JSON as Python's `json.dumps` writes it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// How it is written; by default on one line, with a blank behind commas and colons.
#[derive(Clone, Debug)]
pub(super) struct Style {
    /// Blanks for each level, of which every member then has a line of its own.
    pub(super) indent: Option<usize>,
    /// Stands between members.
    pub(super) comma: String,
    /// Stands behind names.
    pub(super) colon: String,
    /// Everything else is written by its number.
    pub(super) ascii: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { indent: None, comma: ", ".into(), colon: ": ".into(), ascii: false }
    }
}

impl Style {
    pub(super) fn write(&self, value: &impl Serialize) -> Result<String, serde_json::Error> {
        let mut text = vec![];
        let writer = Writer { style: self, depth: 0, has_members: false };
        value.serialize(&mut Serializer::with_formatter(&mut text, writer))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// JSON as Python writes it if it is asked for nothing else.
pub(crate) fn spaced(value: &impl Serialize) -> String {
    Style::default().write(value).unwrap_or_default()
}

struct Writer<'a> {
    style: &'a Style,
    depth: usize,
    has_members: bool,
}

impl Writer<'_> {
    fn open<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.has_members = false;
        writer.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.has_members {
            self.new_line(writer)?;
        }
        self.has_members = true;
        writer.write_all(bracket)
    }

    fn member<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.style.comma.as_bytes())?;
        }
        self.has_members = true;
        self.new_line(writer)
    }

    fn new_line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        match self.style.indent {
            Some(indent) => write!(writer, "\n{:1$}", "", indent * self.depth),
            None => Ok(()),
        }
    }
}

impl Formatter for Writer<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.member(writer, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.member(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.style.colon.as_bytes())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.style.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            match character {
                ' '..='~' => write!(writer, "{character}")?,
                _ => character
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?,
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::Quote => writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => writer.write_all(b"\\\\"),
            CharEscape::Solidus => writer.write_all(b"/"),
            CharEscape::Backspace => writer.write_all(b"\\b"),
            CharEscape::FormFeed => writer.write_all(b"\\f"),
            CharEscape::LineFeed => writer.write_all(b"\\n"),
            CharEscape::CarriageReturn => writer.write_all(b"\\r"),
            CharEscape::Tab => writer.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(writer, "\\u{byte:04x}"),
        }
    }
}

/// With an exponent where Python has one.
fn float(value: f64) -> String {
    let written = format!("{value:e}");
    let exponent =
        written.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse().ok()?)));
    match exponent {
        Some((digits, exponent @ (..-4 | 16..))) => {
            let (sign, size): (_, i32) = if exponent < 0 { ('-', -exponent) } else { ('+', exponent) };
            format!("{digits}e{sign}{size:02}")
        }
        _ if value.fract() == 0.0 => format!("{value:.1}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn by_default_there_is_a_blank_behind_commas_and_colons() {
        let value = json!({"b": [1, "<tool> & 'é'\u{7f}\u{1}\n/"], "a": {}, "c": [[]]});
        let expected = "{\"b\": [1, \"<tool> & 'é'\u{7f}\\u0001\\n/\"], \"a\": {}, \"c\": [[]]}";
        assert_eq!(spaced(&value), expected);
    }

    #[test]
    fn lines_have_their_blanks_and_what_is_empty_has_none() {
        let style = Style { indent: Some(2), comma: ",".into(), ..Style::default() };
        let value = json!({"a": [1, {}], "b": [[], {"c": 2}]});
        let expected =
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": [\n    [],\n    {\n      \"c\": 2\n    }\n  ]\n}";
        assert_eq!(style.write(&value).expect("written"), expected);
    }

    #[test]
    fn ascii_has_the_numbers_of_all_else() {
        let style = Style { ascii: true, ..Style::default() };
        assert_eq!(style.write(&"é🦙\u{7f}\"").expect("written"), r#""\u00e9\ud83e\udd99\u007f\"""#);
    }

    #[test]
    fn numbers_are_those_of_python() {
        let numbers = [1.0, -0.0, 0.1, 47.37, 1e15, 1e16, -1.5e16, 1e-4, 1e-5, 1.25e-7, 5e-324, 1.7e308];
        let written = "[1.0, -0.0, 0.1, 47.37, 1000000000000000.0, 1e+16, -1.5e+16, 0.0001, 1e-05, 1.25e-07, \
                       5e-324, 1.7e+308]";
        assert_eq!(spaced(&numbers), written);
    }
}
