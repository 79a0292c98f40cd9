//! `POST /v1/responses`: OpenAI's newer API, as far as it goes without keeping anything between requests.

mod answer;
mod known;
mod request;
mod stream;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};

use super::{Api, conversation, error::ApiError, fields::Fields, sse};
use crate::{
    chat::{self, ChatStream},
    clients::Principal,
    completion::GRAMMAR,
};
use answer::{Envelope, Usage};
use request::{Asked, SCHEMA};

pub(super) async fn create(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let read = |fields| Asked::read(fields, &principal);
    let (Asked { request, stream, echo }, noted) = conversation::begin(&api, &principal, fields, read)?;
    let envelope = Envelope::new(api.completer.model().id(), echo);
    let started = api.chatter.start(request).await;
    let ChatStream { prompt_tokens, events } =
        started.map_err(|error| ApiError::from(error).about("messages", "input").about(GRAMMAR, SCHEMA))?;
    let events = conversation::held_by(events, SCHEMA);
    if stream {
        return Ok(noted.tell(sse::named(stream::events(events, envelope, prompt_tokens))));
    }
    let mut messages = chat::collect(events, 1).await?;
    let message = messages.pop().ok_or_else(ApiError::no_answer)?;
    let usage = Usage::of(prompt_tokens, message.completion_tokens, message.reasoning_tokens);
    Ok(noted.tell(Json(answer::whole(message, &envelope, usage)).into_response()))
}
