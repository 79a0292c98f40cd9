//! What the dialects have in common about conversations: how they begin, how many messages there may be, how much the
//! model is to think, and by which name a grammar that fails is called.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use serde_json::{Map, Value};

use super::{
    Api,
    error::ApiError,
    fields::Fields,
    ignored::{Ignored, Noted},
    params,
};
use crate::{clients::Principal, completion::GRAMMAR, generation::GenerationError};

/// A conversation of more messages does not fit any context.
pub(super) const MAX_MESSAGES: usize = 10_000;

/// What `read` takes of a request that may have the model, and what was ignored of it.
pub(super) fn begin<T>(
    api: &Api,
    principal: &Principal,
    mut fields: Fields,
    read: impl FnOnce(Fields) -> Result<(T, Ignored), ApiError>,
) -> Result<(T, Noted), ApiError> {
    params::take_model(&mut fields, api)?;
    let (asked, ignored) = read(fields)?;
    let noted = api.unknown_fields.note(ignored)?;
    principal.may_use(api.completer.model().names())?;
    Ok((asked, noted))
}

/// Whether a conversation is not too long; `field` is where it stands. Blocks and items that become messages of their
/// own count as such.
pub(super) fn check_count(field: &str, count: usize) -> Result<(), ApiError> {
    match count <= MAX_MESSAGES {
        true => Ok(()),
        false => {
            Err(ApiError::invalid(field, format!("must have at most {MAX_MESSAGES} messages, got {count}")))
        }
    }
}

/// Tells the template how much the model is to think; templates know it by two names.
pub(super) fn think(variables: &mut Map<String, Value>, effort: String) {
    variables.insert("enable_thinking".into(), (effort != "none").into());
    variables.insert("reasoning_effort".into(), effort.into());
}

/// The same events; what turns out to be wrong with the grammar is said of the field that it came as.
pub(super) fn held_by<T: Send + 'static>(
    events: impl Stream<Item = Result<T, GenerationError>> + Send + 'static,
    named: &'static str,
) -> Pin<Box<dyn Stream<Item = Result<T, GenerationError>> + Send>> {
    let events = events.map(move |event| {
        event.map_err(|error| match error {
            GenerationError::Invalid { field, message } if field == GRAMMAR => {
                let prefix = format!("{GRAMMAR}: ");
                GenerationError::invalid(named, message.strip_prefix(&prefix).unwrap_or(&message))
            }
            other => other,
        })
    });
    events.boxed()
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn a_grammar_that_fails_late_is_called_as_it_came() {
        let late = [Ok(1), Err(GenerationError::invalid(GRAMMAR, "no such thing"))];
        let told: Vec<_> = held_by(stream::iter(late), "format").collect().await;
        assert_eq!(told, [Ok(1), Err(GenerationError::invalid("format", "no such thing"))]);
        let other = GenerationError::invalid("stop", "too long");
        let told: Vec<Result<(), _>> = held_by(stream::iter([Err(other.clone())]), "format").collect().await;
        assert_eq!(told, [Err(other)]);
    }

    #[test]
    fn more_messages_than_fit_any_context_are_refused() {
        assert_eq!(check_count("messages", MAX_MESSAGES), Ok(()));
        let error = check_count("input", MAX_MESSAGES + 1).expect_err("too many").body_json();
        assert_eq!(error["error"]["param"], "input");
    }
}
