//! A call as a JSON object: `{"name": …, "arguments": {…}}`. It is one as soon as the name is a function's and the
//! arguments begin; from there on they are told as the model writes them.

use serde_json::Value;

use super::read::{Read, Then, is_object};

/// Names of members that a call may have. The arguments' names differ between models, and some write what OpenAI's API
/// has besides.
const KEYS: [&str; 5] = ["name", "arguments", "parameters", "id", "type"];

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Key {
    Name,
    Arguments,
    #[default]
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Place {
    /// Before the object.
    #[default]
    Outside,
    BeforeKey,
    InKey,
    BehindKey,
    BeforeValue,
    InValue,
    BehindValue,
}

/// A call that is read, character by character.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonCall {
    place: Place,
    key: Key,
    value: Scan,
    /// The key or the value that is read.
    text: String,
    name: Option<String>,
    /// Arguments that came before the name, or as a text.
    arguments: Option<String>,
    begun: bool,
}

impl JsonCall {
    /// Whether it is certain that this is a call.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn push(&mut self, c: char, names: &[String]) -> Read {
        match (self.place, c) {
            (Place::InKey, _) => return self.in_key(c),
            (Place::InValue, _) => return self.in_value(c, names),
            (_, ' ' | '\t' | '\r' | '\n') => {}
            (Place::Outside, '{') => self.place = Place::BeforeKey,
            (Place::BeforeKey, '"') => {
                self.text.clear();
                self.place = Place::InKey;
            }
            (Place::BehindKey, ':') => self.place = Place::BeforeValue,
            (Place::BeforeValue, _) => return self.begin_value(c),
            (Place::BehindValue, ',') => self.place = Place::BeforeKey,
            (Place::BeforeKey | Place::BehindValue, '}') => return self.end(),
            _ => return self.wrong(),
        }
        Read::default()
    }

    /// What was told stays told: then the call has ended, if not as it should.
    fn wrong(&self) -> Read {
        Read::then(if self.begun { Then::EndsBefore } else { Then::Wrong })
    }

    fn end(&mut self) -> Read {
        match self.name.take() {
            _ if self.begun => Read::then(Then::Ends),
            Some(name) => {
                self.begun = true;
                Read::whole(name, self.arguments.take().unwrap_or_else(|| "{}".into()), Then::Ends)
            }
            None => Read::then(Then::Wrong),
        }
    }

    fn in_key(&mut self, c: char) -> Read {
        if c != '"' {
            self.text.push(c);
            let may_be_known = KEYS.iter().any(|key| key.starts_with(&self.text));
            return if may_be_known || self.begun { Read::default() } else { self.wrong() };
        }
        self.place = Place::BehindKey;
        self.key = match self.text.as_str() {
            "name" if self.name.is_none() && !self.begun => Key::Name,
            "arguments" | "parameters" if self.arguments.is_none() && !self.begun => Key::Arguments,
            key if KEYS.contains(&key) || self.begun => Key::Other,
            _ => return self.wrong(),
        };
        Read::default()
    }

    fn begin_value(&mut self, c: char) -> Read {
        let Some(value) = Scan::begin(c) else { return self.wrong() };
        if self.key == Key::Name && c != '"' {
            return self.wrong();
        }
        (self.place, self.value) = (Place::InValue, value);
        self.text = c.into();
        match self.name.as_ref().filter(|_| self.key == Key::Arguments && c == '{') {
            Some(name) => {
                self.begun = true;
                Read { begins: Some(name.clone()), arguments: c.into(), ..Read::default() }
            }
            None => Read::default(),
        }
    }

    fn in_value(&mut self, c: char, names: &[String]) -> Read {
        let step = self.value.push(c);
        if self.key == Key::Arguments && self.begun {
            let completes = step == Step::EndsWith;
            if completes {
                self.place = Place::BehindValue;
            }
            return Read { arguments: c.into(), completes, ..Read::default() };
        }
        if step != Step::EndsBefore && self.key != Key::Other {
            self.text.push(c);
        }
        if step == Step::Inside {
            let may_be_known = self.key != Key::Name || may_be_one_of(names, &self.text);
            return if may_be_known { Read::default() } else { self.wrong() };
        }
        self.place = Place::BehindValue;
        let told = match self.key {
            Key::Other => Read::default(),
            Key::Name => self.end_name(names),
            Key::Arguments => self.end_arguments(),
        };
        match step {
            // Such a value says nothing by its end, so that what comes behind it does.
            Step::EndsBefore if told.then != Then::Wrong => self.push(c, names),
            _ => told,
        }
    }

    fn end_name(&mut self, names: &[String]) -> Read {
        let name = serde_json::from_str::<String>(&self.text).ok();
        let Some(name) = name.filter(|name| names.contains(name)) else { return self.wrong() };
        if let Some(arguments) = self.arguments.take() {
            self.begun = true;
            return Read::whole(name, arguments, Then::More);
        }
        self.name = Some(name);
        Read::default()
    }

    fn end_arguments(&mut self) -> Read {
        let Some(arguments) = object(&self.text) else { return self.wrong() };
        match &self.name {
            // What is no object by itself is told with the end of all.
            Some(name) if self.text.starts_with('"') => {
                self.begun = true;
                Read::whole(name.clone(), arguments, Then::More)
            }
            _ => {
                self.arguments = Some(arguments);
                Read::default()
            }
        }
    }
}

/// Whether a name of which this is the beginning, with its quotation mark, may be one of these.
fn may_be_one_of(names: &[String], begun: &str) -> bool {
    let plain = begun.get(1..).unwrap_or_default();
    plain.contains('\\') || names.iter().any(|name| name.starts_with(plain))
}

/// Arguments: an object, an object in a text, or nothing.
fn object(text: &str) -> Option<String> {
    match serde_json::from_str(text).ok()? {
        Value::Object(_) => Some(text.to_owned()),
        Value::String(inner) if is_object(&inner) => Some(inner),
        Value::Null => Some("{}".into()),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Inside,
    /// The character was the value's last.
    EndsWith,
    /// The value ended before the character.
    EndsBefore,
}

/// Finds the end of a JSON value.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// A value that begins so, if one does.
    fn begin(c: char) -> Option<Self> {
        let (depth, in_string) = match c {
            '{' | '[' => (1, false),
            '"' => (0, true),
            _ if c.is_ascii_alphanumeric() || c == '-' => (0, false),
            _ => return None,
        };
        Some(Self { depth, in_string, escaped: false })
    }

    fn push(&mut self, c: char) -> Step {
        if self.in_string {
            let ends = c == '"' && !self.escaped;
            self.escaped = c == '\\' && !self.escaped;
            self.in_string = !ends;
            return if ends && self.depth == 0 { Step::EndsWith } else { Step::Inside };
        }
        match c {
            _ if self.depth == 0 => {
                let goes_on = c.is_ascii_alphanumeric() || "+-.".contains(c);
                return if goes_on { Step::Inside } else { Step::EndsBefore };
            }
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => self.depth -= 1,
            _ => {}
        }
        if self.depth == 0 { Step::EndsWith } else { Step::Inside }
    }
}
