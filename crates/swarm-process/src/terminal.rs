//! What a terminal can show. Files and other programs get UTF-8 whatever the locale is.

use std::{
    borrow::Cow,
    env,
    io::{self, IsTerminal, Stderr, Write},
    sync::OnceLock,
};

/// Our signs, and what stands for them where there are only letters.
const SIGNS: [(char, &str); 9] = [
    ('✓', "+"),
    ('✗', "x"),
    ('★', "*"),
    ('→', "->"),
    ('·', "-"),
    ('–', "-"),
    ('…', "..."),
    ('×', "x"),
    ('µ', "u"),
];

/// Whether what is written there may have more than ASCII: it is no terminal, or the locale says UTF-8 or nothing.
pub fn takes_utf8(stream: &impl IsTerminal) -> bool {
    !stream.is_terminal() || locale_is_utf8()
}

/// The text as that stream can show it.
#[must_use]
pub fn shown<'a>(text: &'a str, stream: &impl IsTerminal) -> Cow<'a, str> {
    if takes_utf8(stream) { Cow::Borrowed(text) } else { ascii(text) }
}

/// Standard error, for logs: our signs are letters where it is a terminal that has only these.
#[derive(Debug)]
pub struct Shown(Stderr);

/// Standard error as [`Shown`].
#[must_use]
pub fn stderr() -> Shown {
    Shown(io::stderr())
}

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(bytes) {
            Ok(text) if !takes_utf8(&self.0) => {
                self.0.write_all(ascii(text).as_bytes())?;
                Ok(bytes.len())
            }
            _ => self.0.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn locale_is_utf8() -> bool {
    static IS_UTF8: OnceLock<bool> = OnceLock::new();
    *IS_UTF8.get_or_init(|| says_utf8(["LC_ALL", "LC_CTYPE", "LANG"].map(|name| env::var(name).ok())))
}

/// By POSIX the first variable that is set to something counts. Where none is, as in many containers, the terminal is
/// most likely as new as all others.
fn says_utf8(variables: [Option<String>; 3]) -> bool {
    let locale = variables.into_iter().flatten().find(|locale| !locale.is_empty());
    locale.is_none_or(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// The text with our signs as ASCII; what others wrote stays as it is.
fn ascii(text: &str) -> Cow<'_, str> {
    let letters = |sign: char| SIGNS.iter().find(|(own, _)| *own == sign).map(|(_, letters)| *letters);
    if !text.contains(|sign| letters(sign).is_some()) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for sign in text.chars() {
        match letters(sign) {
            Some(letters) => plain.push_str(letters),
            None => plain.push(sign),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_says_whether_there_is_utf_8() {
        let of = |all: &str, ctype: &str, lang: &str| {
            says_utf8([all, ctype, lang].map(|value| Some(value.into())))
        };
        assert!(of("", "", "en_US.UTF-8") && of("C.utf8", "", "C") && of("", "de_DE.UTF-8", ""));
        assert!(
            !of("C", "", "en_US.UTF-8") && !of("", "POSIX", "C.UTF-8") && !of("", "", "de_DE.ISO-8859-1")
        );
        assert!(of("", "", "") && says_utf8([None, None, None]), "nothing is said");
    }

    #[test]
    fn our_signs_have_letters_and_all_else_stays() {
        assert_eq!(
            ascii("[STATUS] Swarm Ready: ✗ NO → ✓ YES · größer"),
            "[STATUS] Swarm Ready: x NO -> + YES - größer"
        );
        assert!(matches!(ascii("plain"), Cow::Borrowed("plain")));
        assert!(SIGNS.iter().all(|(sign, letters)| !sign.is_ascii() && letters.is_ascii()));
    }
}
