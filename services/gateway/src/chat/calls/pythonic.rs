//! A call as Python writes it: `f(a=1, b="x")`. It is told when it is there as a whole, for its arguments have to be
//! written as JSON.

use serde_json::{Map, Number, Value};

use super::read::{Read, Then};

/// Deeper lists and dictionaries are no arguments that anybody means.
const DEEPEST: usize = 64;

/// A call that is read, character by character.
#[derive(Clone, Debug, Default)]
pub(super) struct PythonCall {
    name: String,
    /// Behind the name, without the outer parentheses.
    arguments: String,
    depth: u32,
    /// The quotation mark of the text that is read.
    quote: Option<char>,
    escaped: bool,
}

impl PythonCall {
    /// Whether a call may begin so.
    pub(super) fn may_begin(c: char) -> bool {
        c.is_ascii_alphanumeric() || "_-".contains(c)
    }

    pub(super) fn push(&mut self, c: char, names: &[String]) -> Read {
        if self.depth == 0 {
            return self.in_name(c, names);
        }
        match self.quote {
            Some(_) if self.escaped => self.escaped = false,
            Some(_) if c == '\\' => self.escaped = true,
            Some(quote) if c == quote => self.quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => self.quote = Some(c),
                '(' | '[' | '{' => self.depth += 1,
                ')' | ']' | '}' => self.depth -= 1,
                _ => {}
            },
        }
        if self.depth > 0 {
            self.arguments.push(c);
            return Read::default();
        }
        let arguments = if c == ')' { arguments(&self.arguments) } else { None };
        match arguments {
            Some(arguments) => {
                Read::whole(std::mem::take(&mut self.name), Value::Object(arguments).to_string(), Then::Ends)
            }
            None => Read::then(Then::Wrong),
        }
    }

    fn in_name(&mut self, c: char, names: &[String]) -> Read {
        let is_known = match c {
            '(' => {
                self.depth = 1;
                names.contains(&self.name)
            }
            _ => {
                self.name.push(c);
                names.iter().any(|name| name.starts_with(&self.name))
            }
        };
        Read::then(if is_known { Then::More } else { Then::Wrong })
    }
}

/// `a=1, b="x"`: arguments with names.
fn arguments(text: &str) -> Option<Map<String, Value>> {
    let mut literal = Literals { rest: text };
    let mut arguments = Map::new();
    literal.blanks();
    while !literal.rest.is_empty() {
        let name = literal.until(|c| c == '=')?;
        if name.is_empty() || name.contains(['(', ')', '[', ']', '{', '}', ',', '"', '\'']) {
            return None;
        }
        literal.take('=')?;
        arguments.insert(name.trim().to_owned(), literal.value(0)?);
        if literal.take(',').is_none() && !literal.rest.is_empty() {
            return None;
        }
        literal.blanks();
    }
    Some(arguments)
}

/// Python's literals, and those of JSON where they are others.
struct Literals<'a> {
    rest: &'a str,
}

impl<'a> Literals<'a> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes the character, if it is the next, and blanks around it.
    fn take(&mut self, c: char) -> Option<()> {
        self.blanks();
        self.rest = self.rest.strip_prefix(c)?;
        self.blanks();
        Some(())
    }

    fn until(&mut self, ends: impl Fn(char) -> bool) -> Option<&'a str> {
        let end = self.rest.find(ends)?;
        let (before, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(before)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        self.blanks();
        let value = match self.rest.chars().next()? {
            quote @ ('"' | '\'') => Value::String(self.text(quote)?),
            '[' => Value::Array(self.list(('[', ']'), depth)?),
            '(' => Value::Array(self.list(('(', ')'), depth)?),
            '{' => Value::Object(self.dictionary(depth)?),
            _ => self.word()?,
        };
        self.blanks();
        Some(value)
    }

    fn list(&mut self, (open, close): (char, char), depth: usize) -> Option<Vec<Value>> {
        self.take(open)?;
        let mut values = vec![];
        while self.take(close).is_none() {
            values.push(self.value(depth + 1)?);
            if self.take(',').is_none() {
                self.take(close)?;
                break;
            }
        }
        Some(values)
    }

    fn dictionary(&mut self, depth: usize) -> Option<Map<String, Value>> {
        self.take('{')?;
        let mut members = Map::new();
        while self.take('}').is_none() {
            let key = match self.value(depth + 1)? {
                Value::String(key) => key,
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            self.take(':')?;
            members.insert(key, self.value(depth + 1)?);
            if self.take(',').is_none() {
                self.take('}')?;
                break;
            }
        }
        Some(members)
    }

    /// A number, or a name of what is always there.
    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        match word {
            "True" | "true" => Some(true.into()),
            "False" | "false" => Some(false.into()),
            "None" | "null" => Some(Value::Null),
            _ => number(word).map(Value::Number),
        }
    }

    fn text(&mut self, quote: char) -> Option<String> {
        self.rest = self.rest.strip_prefix(quote)?;
        let mut text = String::new();
        loop {
            let mut characters = self.rest.chars();
            let c = characters.next()?;
            self.rest = characters.as_str();
            match c {
                '\\' => self.escape(&mut text)?,
                _ if c == quote => return Some(text),
                _ => text.push(c),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        let mut characters = self.rest.chars();
        let c = characters.next()?;
        self.rest = characters.as_str();
        let escaped = match c {
            '\n' => return Some(()),
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            '\\' | '\'' | '"' | '/' => c,
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            // As Python has it.
            _ => {
                text.push('\\');
                c
            }
        };
        text.push(escaped);
        Some(())
    }

    /// A character by its number. JSON writes some as two numbers.
    fn code(&mut self, digits: usize) -> Option<char> {
        let first = self.hex(digits)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.rest = self.rest.strip_prefix("\\u")?;
        let second = self.hex(4)?.checked_sub(0xdc00).filter(|second| *second < 0x400)?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + second)
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        u32::from_str_radix(number, 16).ok()
    }
}

/// A number as JSON has it, or else as Python does.
fn number(word: &str) -> Option<Number> {
    let plain = word.replace('_', "");
    let python = || plain.parse::<f64>().ok().and_then(Number::from_f64);
    // Rust also knows numbers that are words, such as infinity.
    let begins = plain.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    serde_json::from_str(&plain).ok().or_else(python).filter(|_| begins)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Option<Value> {
        arguments(text).map(Value::Object)
    }

    #[test]
    fn literals_of_python_become_json() {
        let text =
            r#"a=1, b = "x\"y", c='it\'s', d=[1, -2.5, 1e3,], e={"k": (True, None), 2: {}}, f=.5, g=1_000"#;
        let expected = json!({
            "a": 1, "b": "x\"y", "c": "it's", "d": [1, -2.5, 1e3], "e": {"k": [true, null], "2": {}}, "f": 0.5,
            "g": 1000,
        });
        assert_eq!(read(text), Some(expected));
        assert_eq!(read(""), Some(json!({})));
        assert_eq!(read("a=true, b=null"), Some(json!({"a": true, "b": null})));
        assert_eq!(read(r#"a="\ud83d\ude00\u00e9\x41\d""#), Some(json!({"a": "😀éA\\d"})));
    }

    #[test]
    fn what_is_no_literal_is_no_argument() {
        let deep = format!("a={}", "[".repeat(1000));
        for wrong in
            ["1", "a", "a=", "a=b", "a=1 b=2", "a=[1", "a={1}", "a=\"x", "(a)=1", "a=inf", "a=nan", &deep]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
