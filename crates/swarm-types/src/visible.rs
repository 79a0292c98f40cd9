//! Texts that somebody else wrote, on their way to a terminal.
//!
//! A terminal obeys some characters instead of showing them: they move the cursor, rename the window, or turn the order
//! of what follows around, so that a line says what nobody wrote. Announcements with such characters are refused, and
//! whatever is printed goes through here.

use std::{borrow::Cow, fmt::Write};

/// What stands for a hidden character where a text is made clean once and for all.
const REPLACEMENT: char = '\u{fffd}';

/// Whether a text has only characters that are seen where they stand.
#[must_use]
pub fn is_visible(text: &str) -> bool {
    !text.contains(hides)
}

/// The text with each character that would not be seen as `\u{…}`. Line ends are such characters: what this gives is
/// one line.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, hides, |out, hidden| write!(out, "{}", hidden.escape_unicode()))
}

/// The same for a text of several lines: line feeds and tabs stay.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    let hides = |c| hides(c) && !matches!(c, '\n' | '\t');
    escaped(text, hides, |out, hidden| write!(out, "{}", hidden.escape_unicode()))
}

/// The same for JSON, which means the same afterwards: but for line feeds, which stay, such characters stand only
/// inside of its strings.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    let hides = |c| hides(c) && c != '\n';
    escaped(text, hides, |out, hidden| {
        let mut units = [0; 2];
        hidden.encode_utf16(&mut units).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
    })
}

/// The text with each character that would not be seen replaced: for names that come from files, before they are told
/// to others.
#[must_use]
pub fn cleaned(text: &str) -> Cow<'_, str> {
    escaped(text, hides, |out, _| out.write_char(REPLACEMENT))
}

/// Control characters (C0, DEL, C1), ends of lines and paragraphs, and what changes the direction of writing
/// (Unicode's property `Bidi_Control`: <https://www.unicode.org/reports/tr9/#Bidi_Character_Types>).
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(
    text: &str,
    hides: impl Fn(char) -> bool,
    escape: impl Fn(&mut String, char) -> std::fmt::Result,
) -> Cow<'_, str> {
    if !text.contains(&hides) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        let written = if hides(c) { escape(&mut out, c) } else { out.write_char(c) };
        written.expect("writing to a String cannot fail");
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        let hostile = "\u{1b}]0;OWNED\u{7}\r\n[STATUS] Swarm Ready: \u{9b}31m\u{202e}SEY\u{7f}";
        let shown = "\\u{1b}]0;OWNED\\u{7}\\u{d}\\u{a}[STATUS] Swarm Ready: \\u{9b}31m\\u{202e}SEY\\u{7f}";
        assert_eq!(one_line(hostile), shown);
        assert_eq!(cleaned("a\u{1b}b\u{2066}"), "a\u{fffd}b\u{fffd}");
        assert!(!is_visible(hostile) && is_visible(shown));
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in ["", "SmolLM2 135M", "größer €", "שלום", "日本語", "👩‍🚀", "a\u{301}"] {
            assert!(matches!(one_line(text), Cow::Borrowed(same) if same == text));
            assert!(is_visible(text), "{text}");
        }
        assert_eq!(lines("one\n\ttwo\r\u{1b}[2J"), "one\n\ttwo\\u{d}\\u{1b}[2J");
    }

    proptest! {
        #[test]
        fn nothing_hidden_comes_through(text in any::<String>()) {
            prop_assert!(is_visible(&one_line(&text)));
            prop_assert!(is_visible(&cleaned(&text)));
            prop_assert!(lines(&text).split(['\n', '\t']).all(is_visible));
        }

        #[test]
        fn json_means_the_same_afterwards(text in any::<String>()) {
            let whole = serde_json::to_string_pretty(&[&text]).expect("JSON");
            let shown = json(&whole);
            prop_assert!(shown.split('\n').all(is_visible));
            prop_assert_eq!(serde_json::from_str::<[String; 1]>(&shown).expect("JSON"), [text]);
        }
    }
}
