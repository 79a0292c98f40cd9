//! What is checked of a grammar before the library sees it: it goes down into what is nested by calling itself.

use serde_json::{Map, Value, json};

use crate::{effort, error::GrammarError};

/// Objects, arrays and groups within each other. The library's parsers have room for ten times as many.
const MAX_DEPTH: usize = 64;

/// A JSON Schema, and how documents by it are written.
pub(crate) fn schema(text: &str) -> Result<Value, GrammarError> {
    let schema = match serde_json::from_str(text) {
        Ok(Value::Object(schema)) => schema,
        Ok(Value::Bool(true)) => Default::default(),
        Ok(Value::Bool(false)) => {
            return Err(GrammarError::Invalid("no document is valid by the schema false".into()));
        }
        Ok(_) => return Err(GrammarError::Invalid("a schema must be an object or true".into())),
        Err(error) => return Err(GrammarError::Invalid(format!("the schema must be JSON: {error}"))),
    };
    let depth = depth_of(text, true);
    if depth > MAX_DEPTH {
        return Err(too_deep(depth));
    }
    let schema = on_one_line(schema);
    effort::check(&schema)?;
    Ok(schema)
}

/// A schema whose documents stand on one line, so that no model can fill its tokens with blanks. The library's own
/// options say so, which nobody else may set.
#[must_use]
pub fn on_one_line(mut schema: Map<String, Value>) -> Value {
    let options = json!({
        "whitespace_flexible": false,
        "item_separator": ", ",
        "key_separator": ": ",
        "json_allow_general_unicode_escapes": true,
    });
    schema.insert("x-guidance".into(), options);
    schema.into()
}

/// A regular expression or a Lark grammar. Brackets in texts count as well: that is simpler, and nobody has so many.
pub(crate) fn depth(text: &str) -> Result<(), GrammarError> {
    match depth_of(text, false) {
        ..=MAX_DEPTH => Ok(()),
        depth => Err(too_deep(depth)),
    }
}

fn too_deep(depth: usize) -> GrammarError {
    GrammarError::Invalid(format!("it is nested {depth} deep, at most {MAX_DEPTH} are taken"))
}

/// How deep brackets stand in each other; in JSON without those in texts.
fn depth_of(text: &str, json: bool) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in text.bytes() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match byte {
            b'\\' => escaped = json,
            b'"' if json => in_text = !in_text,
            _ if in_text => {}
            b'(' | b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_too_deeply_is_refused_and_texts_do_not_count_in_json() {
        let nested =
            |levels: usize| format!("{}{}", r#"{"items":"#.repeat(levels) + "true", "}".repeat(levels));
        assert!(schema(&nested(MAX_DEPTH)).is_ok());
        assert!(schema(&nested(MAX_DEPTH + 1)).is_err());
        let texts = format!(r#"{{"const": "{}\"{}"}}"#, "(".repeat(1000), "[".repeat(1000));
        assert!(schema(&texts).is_ok());
        assert!(depth(&"(a|".repeat(MAX_DEPTH)).is_ok());
        assert!(depth(&"(a|".repeat(MAX_DEPTH + 1)).is_err());
        assert!(depth(&"()".repeat(1000)).is_ok());
    }

    #[test]
    fn a_schema_is_an_object_or_true_and_its_writing_is_ours() {
        for wrong in ["false", "1", "[]", "{", "\"x\""] {
            assert!(schema(wrong).is_err(), "{wrong}");
        }
        assert!(schema("true").is_ok());
        let own = schema(r#"{"x-guidance": {"whitespace_flexible": true}}"#).expect("valid");
        assert_eq!(own["x-guidance"]["whitespace_flexible"], false);
    }
}
