//! What templates expect of Python that Jinja in Rust does otherwise.

mod json;
mod methods;

use minijinja::{
    Environment, Error, ErrorKind, State, Value, filters,
    value::{Kwargs, Serde, ValueKind},
};
use minijinja_contrib::globals::joiner;

use json::Style;
pub(crate) use json::spaced;

/// Gives templates what their makers' Python has.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(methods::call);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_function("joiner", joiner);
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
}

/// What is no number is what else is wanted, or zero.
fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    options: Kwargs,
) -> Result<Value, Error> {
    let default = default.map_or_else(|| options.get::<Option<Value>>("default"), |value| Ok(Some(value)))?;
    filters::int(state, value, Some(default.unwrap_or_else(|| 0.into())), base, options)
}

/// Like [`int`].
fn float(state: &State, value: &Value, default: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let default = default.map_or_else(|| options.get::<Option<Value>>("default"), |value| Ok(Some(value)))?;
    filters::float(state, value, Some(default.unwrap_or_else(|| 0.0.into())), options)
}

/// Nothing is not, unlike what is not there.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Whatever has a length and a first place.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
}

/// Some templates tell the model the date.
fn strftime_now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(format.as_bytes(), &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// The longest text between members of JSON that a template may ask for, and the most blanks before them.
const LONGEST_SPACE: usize = 16;

/// JSON as `transformers` has templates write it: with nothing written otherwise for the sake of HTML.
fn tojson(
    value: Serde<serde_json::Value>,
    ascii: Option<Value>,
    indent: Option<usize>,
    options: Kwargs,
) -> Result<Value, Error> {
    let Serde(mut value) = value;
    let wrong = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    let named = |name| -> Result<bool, Error> {
        Ok(options.get::<Option<Value>>(name)?.is_some_and(|it| it.is_true()))
    };
    if named("sort_keys")? {
        value.sort_all_objects();
    }
    let mut style =
        Style { ascii: ascii.is_some_and(|it| it.is_true()) | named("ensure_ascii")?, ..Style::default() };
    style.indent = indent.or(options.get("indent")?).map(|indent| indent.min(LONGEST_SPACE));
    if style.indent.is_some() {
        style.comma = ",".into();
    }
    match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
        None => {}
        Some([comma, colon]) if comma.len().max(colon.len()) <= LONGEST_SPACE => {
            (style.comma, style.colon) = (comma.clone(), colon.clone());
        }
        Some(other) => return Err(wrong(format!("separators must be two short texts, got {}", other.len()))),
    }
    options.assert_all_used()?;
    style.write(&value).map(Value::from).map_err(|error| wrong(error.to_string()))
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
        for source in
            ["{{ x | tojson }}", "{{ x | tojson(ensure_ascii=False, sort_keys=false, indent=none) }}"]
        {
            assert_eq!(render(source, value.clone()), expected);
        }
        let dense = "{{ x | tojson(separators=(',', ':'), sort_keys=true, ensure_ascii=true) }}";
        assert_eq!(render(dense, value.clone()), r#"{"a":{},"b":[1,"<tool> & '\u00e9'"]}"#);
        assert_eq!(render("{{ x | tojson(true) }}", json!("é")), r#""\u00e9""#);
        assert_eq!(render("{{ x | tojson(indent=4) }}", json!({"a": 1})), "{\n    \"a\": 1\n}");
    }

    #[test]
    fn json_has_no_more_space_than_anybody_needs() {
        let long = format!("{{{{ x | tojson(separators=('{}', ':')) }}}}", ",".repeat(17));
        let mut environment = Environment::new();
        add_to(&mut environment);
        let error = environment.render_str(&long, Value::from_pairs([("x", 1)])).expect_err("too long");
        assert!(error.to_string().contains("two short texts"), "{error}");
        assert_eq!(render("{{ x | tojson(indent=999999999) }}", json!([1])), format!("[\n{:16}1\n]", ""));
    }

    #[test]
    fn nothing_is_no_list_but_texts_and_what_is_not_there_are_something_like_it() {
        let source = "{% for v in [none, unknown, 'ab', [], {}, 1] %}{{ v is iterable }} {{ v is sequence }}, {% endfor %}";
        let expected = "False False, True True, True True, True True, True True, False False, ";
        assert_eq!(render(source, json!({})), expected);
    }

    #[test]
    fn what_is_no_number_is_zero_or_what_else_is_wanted() {
        let source = "{{ 'x'|int }} {{ '7'|int }} {{ 'x'|int(5) }} {{ 'x'|int(default=6) }} {{ '1.5'|float }} {{ 'x'|float }}";
        assert_eq!(render(source, json!({})), "0 7 5 6 1.5 0.0");
    }

    #[test]
    fn dates_are_written_as_python_does() {
        assert_eq!(render("{{ strftime_now('%Y') }}", json!({})).len(), 4);
    }
}
