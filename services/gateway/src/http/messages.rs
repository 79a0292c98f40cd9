//! `POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's API.

mod answer;
mod known;
mod request;
mod stream;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{Api, conversation, error::ApiError, fields::Fields, sse};
use crate::{
    chat::{self, ChatStream},
    clients::Principal,
    completion::GRAMMAR,
};
use answer::Envelope;
use request::{Asked, Purpose, SCHEMA};

pub(super) async fn create(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let read = |fields| Asked::read(fields, &principal, Purpose::Answer);
    let (Asked { request, stream }, noted) = conversation::begin(&api, &principal, fields, read)?;
    let started = api.chatter.start(request).await;
    let ChatStream { prompt_tokens, events } = started.map_err(|error| named(error.into()))?;
    let events = conversation::held_by(events, SCHEMA);
    let envelope = Envelope::new(api.completer.model().id(), prompt_tokens);
    if stream {
        return Ok(noted.tell(sse::named(stream::events(events, envelope))));
    }
    let mut messages = chat::collect(events, 1).await?;
    let message = messages.pop().ok_or_else(ApiError::no_answer)?;
    Ok(noted.tell(Json(envelope.whole(message)).into_response()))
}

/// What is wrong is said of the field that it came as.
fn named(error: ApiError) -> ApiError {
    error.about(GRAMMAR, SCHEMA).about("stop", "stop_sequences")
}

/// How many tokens the same would have as a prompt.
pub(super) async fn count(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let read = |fields| Asked::read(fields, &principal, Purpose::Count);
    let (Asked { request, .. }, noted) = conversation::begin(&api, &principal, fields, read)?;
    let prompt = api.chatter.prompt(request).await.map_err(|error| named(error.into()))?;
    principal.draw(prompt.len() as u64)?;
    Ok(noted.tell(Json(json!({"input_tokens": prompt.len()})).into_response()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::GenerationError;

    #[test]
    fn what_is_wrong_is_said_of_the_field_that_it_came_as() {
        for (field, expected) in [(GRAMMAR, SCHEMA), ("stop", "stop_sequences"), ("messages", "messages")] {
            let told = named(GenerationError::invalid(field, "x").into()).body_json();
            assert_eq!(told["error"]["message"], format!("{expected}: x"));
        }
    }
}
