//! The members of an object within a request, each error with the way to it: `tools[0].function.name`.

use serde_json::{Map, Value};

use super::{error::ApiError, short::short};

/// The members of an object that were not taken yet. `null` counts as absent.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Members {
    path: String,
    members: Map<String, Value>,
}

impl Members {
    /// The object at a place in the request.
    pub(super) fn of(path: String, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(members) => Ok(Self { path, members }),
            Value::Null => Err(ApiError::invalid(&path, "missing: give an object")),
            other => Err(ApiError::invalid(&path, format!("must be an object, got {}", short(other)))),
        }
    }

    /// The way to a member.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// A member that is wrong.
    pub(super) fn wrong(&self, name: &str, what: impl std::fmt::Display) -> ApiError {
        ApiError::invalid(&self.path(name), what)
    }

    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, format!("must be a text, got {}", short(other)))),
        }
    }

    pub(super) fn needed_text(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "missing: give a text"))
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.value(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(name, format!("must be true or false, got {}", short(other)))),
        }
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Self, ApiError> {
        Self::of(self.path(name), self.value(name).unwrap_or_default())
    }

    /// The objects of a list; none where there is no list.
    pub(super) fn objects(&mut self, name: &str) -> Result<Vec<Self>, ApiError> {
        match self.value(name) {
            None => Ok(vec![]),
            Some(list) => objects(&self.path(name), list),
        }
    }

    /// What nobody took.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.members
    }
}

/// The objects of a list at a place in the request.
pub(super) fn objects(path: &str, list: Value) -> Result<Vec<Members>, ApiError> {
    let Value::Array(list) = list else {
        return Err(ApiError::invalid(path, format!("must be a list, got {}", short(&list))));
    };
    list.into_iter()
        .enumerate()
        .map(|(place, value)| Members::of(format!("{path}[{place}]"), value))
        .collect()
}
