//! What templates expect of Python that Jinja in Rust does otherwise.

use std::io::{self, Write};

use minijinja::{
    Environment, Error, ErrorKind, Value,
    value::{Kwargs, Serde},
};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Gives templates what their makers' Python has.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
}

/// Some templates tell the model the date.
fn strftime_now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(format.as_bytes(), &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// JSON as models were trained to see it: with a blank behind commas and colons, and with nothing written otherwise for
/// the sake of HTML. What else may be asked for there changes nothing in what the templates of models write.
fn tojson(value: Serde<serde_json::Value>, indent: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let named: Option<usize> = options.get("indent")?;
    let written = match indent.or(named) {
        Some(indent) => write(&value.0, PrettyFormatter::with_indent(" ".repeat(indent.min(16)).as_bytes())),
        None => write(&value.0, Spaced),
    };
    for name in ["ensure_ascii", "separators", "sort_keys"] {
        let _ = options.get::<Option<Value>>(name)?;
    }
    options.assert_all_used()?;
    let wrong = |error: serde_json::Error| Error::new(ErrorKind::InvalidOperation, error.to_string());
    written.map(Value::from_safe_string).map_err(wrong)
}

/// JSON as Python writes it.
pub(crate) fn spaced(value: &impl Serialize) -> String {
    write(value, Spaced).unwrap_or_default()
}

fn write(value: &impl Serialize, formatter: impl Formatter) -> Result<String, serde_json::Error> {
    let mut text = vec![];
    value.serialize(&mut Serializer::with_formatter(&mut text, formatter))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str, value: serde_json::Value) -> String {
        let mut environment = Environment::new();
        add_to(&mut environment);
        let context = Value::from_pairs([("x", Value::from(Serde(value)))]);
        environment.render_str(source, context).expect("rendered")
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = json!({"b": [1, "<tool> & 'é'"], "a": {}});
        let expected = r#"{"b": [1, "<tool> & 'é'"], "a": {}}"#;
        assert_eq!(render("{{ x | tojson }}", value.clone()), expected);
        assert_eq!(render("{{ x | tojson(ensure_ascii=False) }}", value.clone()), expected);
        assert_eq!(spaced(&value), expected);
        assert_eq!(render("{{ x | tojson(indent=4) }}", json!({"a": 1})), "{\n    \"a\": 1\n}");
    }

    #[test]
    fn dates_are_written_as_python_does() {
        assert_eq!(render("{{ strftime_now('%Y') }}", json!({})).len(), 4);
    }
}
