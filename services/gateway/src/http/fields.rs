//! The fields of a request, taken one by one, so that what is left at the end is known to be unknown.

use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

use super::{error::ApiError, ignored::Ignored, short::short};

/// The fields of a JSON object that were not taken yet. `null` counts as absent everywhere.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        // Some editors begin every text with it.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::not_json("it is another kind of value")),
            Err(error) => Err(ApiError::not_json(error)),
        }
    }

    /// One field.
    pub(super) fn of(name: &str, value: Value) -> Self {
        Self([(name.to_owned(), value)].into_iter().collect())
    }

    /// The fields of an object inside of another.
    pub(super) fn inside(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// A field's value, if it is given.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::deserialize(whole(value)) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(ApiError::invalid(name, short(error))),
            },
        }
    }

    /// A whole number, if it is given. Some clients write it as `16.0`.
    pub(super) fn take_whole(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take_value(name) else { return Ok(None) };
        let number = whole(value);
        let wrong = || ApiError::invalid(name, format!("must be a whole number, got {}", short(&number)));
        number.as_i64().ok_or_else(wrong).map(Some)
    }

    /// A whole number that is not negative, if it is given.
    pub(super) fn take_count(&mut self, name: &str) -> Result<Option<u32>, ApiError> {
        let Some(number) = self.take_whole(name)? else { return Ok(None) };
        let wrong = |_| ApiError::invalid(name, format!("must be 0 to {}, got {number}", u32::MAX));
        u32::try_from(number).map_err(wrong).map(Some)
    }

    /// The same under any of several names, of which one is given, or all alike.
    pub(super) fn take_either<T: PartialEq>(
        &mut self,
        names: &[&str],
        mut take: impl FnMut(&mut Self, &str) -> Result<Option<T>, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        let mut found: Option<(&str, T)> = None;
        for name in names {
            let Some(value) = take(self, name)? else { continue };
            match &found {
                Some((first, other)) if *other != value => {
                    return Err(ApiError::invalid(name, format!("differs from {first}: give one of them")));
                }
                _ => found = Some((name, value)),
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// A field's value as it is, if it is given.
    pub(super) fn take_value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// A field that does not change the result here.
    pub(super) fn ignore(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// A field that is not served: only values under which it changes nothing are taken.
    pub(super) fn refuse_unless(
        &mut self,
        name: &str,
        changes_nothing: impl Fn(&Value) -> bool,
    ) -> Result<(), ApiError> {
        match self.take_value(name) {
            Some(value) if !changes_nothing(&value) => {
                Err(ApiError::unsupported(name, "not supported here, leave it out"))
            }
            _ => Ok(()),
        }
    }

    /// A part of a field that was taken, and that nobody knows.
    pub(super) fn leave(&mut self, part: String) {
        self.0.insert(part, Value::Bool(true));
    }

    /// The same for all members of an object but those that are known; `path` is the way to it.
    pub(super) fn leave_others(&mut self, path: &str, object: &Value, known: &[&str]) {
        let members = object.as_object().into_iter().flatten();
        for (name, _) in members.filter(|(name, value)| !value.is_null() && !known.contains(&name.as_str())) {
            self.leave(format!("{path}.{name}"));
        }
    }

    /// The names that nobody took.
    pub(super) fn finish(self) -> Ignored {
        let given = self.0.into_iter().filter(|(_, value)| !value.is_null());
        Ignored(given.map(|(name, _)| name).collect())
    }
}

/// A number that is whole, as such a number.
pub(super) fn whole(value: Value) -> Value {
    /// Above this not every whole number is one of 64 bits' floating point.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.as_f64() {
        Some(number) if value.is_f64() && number.fract() == 0.0 && number.abs() <= EXACT => {
            Value::Number(Number::from(number as i64))
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).expect("an object")
    }

    #[test]
    fn fields_are_taken_by_type_and_wrong_or_unknown_ones_named() {
        let mut some = fields(r#"{"n": 2, "stop": null, "seed": "x", "tools": [], "odd": null}"#);
        assert_eq!(some.take::<u32>("n"), Ok(Some(2)));
        assert_eq!(some.take::<Vec<String>>("stop"), Ok(None));
        let wrong = some.take::<u64>("seed").expect_err("not a number");
        assert_eq!(wrong.body_json()["error"]["param"], "seed");
        let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        assert_eq!(some.refuse_unless("tools", empty), Ok(()));
        assert!(some.finish().names().is_empty());

        let refused = fields(r#"{"tools": [1]}"#).refuse_unless("tools", empty).expect_err("refused");
        assert_eq!(refused.body_json()["error"]["code"], "unsupported_parameter");
        let unknown = fields(r#"{"temprature": 1, "odd": null}"#).finish();
        assert_eq!(unknown.names(), ["temprature"]);
    }

    #[test]
    fn whole_numbers_are_taken_as_clients_write_them() {
        let mut some =
            fields(r#"{"a": 16.0, "b": -1, "c": 1.5, "d": "x", "e": 1e300, "f": 0.5, "g": 7.0, "h": 5e9}"#);
        assert_eq!(some.take_whole("a"), Ok(Some(16)));
        assert_eq!(some.take_whole("b"), Ok(Some(-1)));
        for wrong in ["c", "d", "e"] {
            let error = some.take_whole(wrong).expect_err(wrong).body_json();
            assert_eq!(error["error"]["param"], wrong);
        }
        assert_eq!(some.take::<f32>("f"), Ok(Some(0.5)));
        assert_eq!(some.take::<u64>("g"), Ok(Some(7)));
        assert!(some.take_count("h").is_err());
    }

    #[test]
    fn names_for_the_same_thing_are_taken_when_they_say_the_same() {
        let take =
            |json: &str| fields(json).take_either(&["new", "old"], |fields, name| fields.take::<u32>(name));
        assert_eq!(take("{}"), Ok(None));
        assert_eq!(take(r#"{"old": 2}"#), Ok(Some(2)));
        assert_eq!(take(r#"{"old": 2, "new": 2}"#), Ok(Some(2)));
        let error = take(r#"{"old": 2, "new": 3}"#).expect_err("they differ").body_json();
        assert_eq!(error["error"]["param"], "old");
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for body in ["", "{", "[]", "1", "\"x\"", &"[".repeat(100_000)] {
            assert!(Fields::parse(body.as_bytes()).is_err(), "{body:.20}");
        }
    }
}
