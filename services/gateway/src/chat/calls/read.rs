//! What becomes of a call with its next character.

use serde_json::{Map, Value};

/// What becomes of a call with its next character.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Read {
    /// It is certain now that it is one: of this function.
    pub(super) begins: Option<String>,
    /// More of its arguments.
    pub(super) arguments: String,
    /// They are all there.
    pub(super) completes: bool,
    pub(super) then: Then,
}

/// How it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Then {
    #[default]
    More,
    /// The character was the call's last.
    Ends,
    /// The character is not the call's any more.
    EndsBefore,
    /// It is no call, and nothing was told of it. The character was not looked at.
    Wrong,
}

impl Read {
    pub(super) fn then(then: Then) -> Self {
        Self { then, ..Self::default() }
    }

    /// A call of which all is known.
    pub(super) fn whole(name: String, arguments: String, then: Then) -> Self {
        Self { begins: Some(name), arguments, completes: true, then }
    }
}

/// Whether this is a JSON object, as arguments have to be.
pub(super) fn is_object(text: &str) -> bool {
    serde_json::from_str::<Map<String, Value>>(text).is_ok()
}
