//! The fields of a request, taken one by one, so that what is left at the end is known to be unknown.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;

/// The fields of a JSON object that were not taken yet. `null` counts as absent everywhere.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::not_json("it is another kind of value")),
            Err(error) => Err(ApiError::not_json(error)),
        }
    }

    /// A field's value, if it is given.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::deserialize(value) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(ApiError::invalid(name, error)),
            },
        }
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

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.into_iter().find(|(_, value)| !value.is_null()) {
            Some((name, _)) => Err(ApiError::unknown(&name)),
            None => Ok(()),
        }
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
        assert_eq!(some.finish(), Ok(()));

        let refused = fields(r#"{"tools": [1]}"#).refuse_unless("tools", empty).expect_err("refused");
        assert_eq!(refused.body_json()["error"]["code"], "unsupported_parameter");
        let unknown = fields(r#"{"temprature": 1}"#).finish().expect_err("unknown");
        assert_eq!(unknown.body_json()["error"]["param"], "temprature");
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for body in ["", "{", "[]", "1", "\"x\"", &"[".repeat(100_000)] {
            assert!(Fields::parse(body.as_bytes()).is_err(), "{body:.20}");
        }
    }
}
