//! `POST /v1/chat/completions`.

mod answer;
pub(super) mod messages;
pub(super) mod request;
mod tools;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};

use answer::Answer;
use request::Asked;

use super::{
    Api, conversation,
    error::ApiError,
    fields::Fields,
    sse::{self, Envelope},
    usage::Usage,
};
use crate::{chat, clients::Principal, completion::GRAMMAR, waits};

pub(super) async fn complete(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let (asked, ignored) = Asked::read(fields, principal, &api)?;
    let noted = api.unknown_fields.note(ignored)?;
    let count = asked.chat.choices as usize;
    if asked.stream {
        waits::streams();
    }
    let started = api.chatter.start(asked.chat).await;
    let chat = started.map_err(|error| ApiError::from(error).about(GRAMMAR, asked.grammar_field))?;
    let events = conversation::held_by(chat.events, asked.grammar_field);
    let usage = Usage::of_prompts(chat.prompt_tokens);
    let completer = api.completer;
    let answer = Answer { completer, logprobs: asked.logprobs, path_times: asked.path_times };
    let model = answer.completer.model();
    if asked.stream {
        let envelope = Envelope::new("chatcmpl", "chat.completion.chunk", model);
        return Ok(noted.tell(sse::respond(answer.stream(events, count, envelope, usage, asked.usage))));
    }
    let envelope = Envelope::new("chatcmpl", "chat.completion", model);
    let messages = chat::collect(events, count).await?;
    Ok(noted.tell(Json(answer.whole(messages, &envelope, usage)).into_response()))
}
