//! `POST /api/embed`, and `POST /api/embeddings` as it was before: what a text is like, as numbers.

use std::time::Instant;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use swarm_types::TokenId;

use super::{answer::nanos, models};
use crate::{
    clients::Principal,
    generation::GenerationError,
    http::{
        Api,
        embeddings::{Embedded, check, embed_all, encode},
        error::ApiError,
        fields::Fields,
        texts::{self, Given},
    },
};

/// The answer; the numbers are f32 `[hidden]` for each text.
#[derive(Serialize)]
struct Answer {
    model: String,
    embeddings: Vec<Vec<f32>>,
    prompt_eval_count: u64,
    /// Nanoseconds.
    total_duration: Value,
    load_duration: u64,
}

/// The answer as it was before.
#[derive(Serialize)]
struct Older {
    embedding: Vec<f32>,
}

pub(in crate::http) async fn embed(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let model = models::take_name(&mut fields, &api)?;
    let (inputs, dimensions) = (inputs(&mut fields)?, fields.take_count("dimensions")?);
    let cuts = fields.take("truncate")?.unwrap_or(true);
    ["keep_alive", "options"].iter().for_each(|name| fields.ignore(name));
    let noted = api.unknown_fields.note(fields.finish())?;
    principal.may_use(api.completer.model().names())?;
    check(inputs.len(), dimensions, api.completer.model().facts().hidden)?;
    let mut prompts = vec![];
    for given in inputs {
        prompts.push(if cuts { encode_cut(&api, given).await? } else { encode(&api, given).await? });
    }
    let Embedded { vectors, tokens } = embed_all(&api, &principal, prompts).await?;
    let answer = Answer {
        model,
        embeddings: vectors,
        prompt_eval_count: tokens,
        total_duration: nanos(begun.elapsed()),
        load_duration: 0,
    };
    Ok(noted.tell(Json(answer).into_response()))
}

/// Where there is nothing to read, there are no embeddings.
fn inputs(fields: &mut Fields) -> Result<Vec<Given>, ApiError> {
    let mut inputs = texts::take(fields, "input")?.unwrap_or_default();
    if matches!(inputs.as_slice(), [Given::Text(text)] if text.is_empty()) {
        inputs.clear();
    }
    Ok(inputs)
}

/// What is longer than the context is cut to it.
async fn encode_cut(api: &Api, given: Given) -> Result<Vec<TokenId>, GenerationError> {
    match given {
        Given::Text(text) => api.completer.encode_cut(text).await,
        Given::Tokens(mut tokens) => {
            tokens.truncate(api.completer.model().context_length() as usize);
            Ok(tokens)
        }
    }
}

pub(in crate::http) async fn embed_one(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    models::take_name(&mut fields, &api)?;
    let text: String =
        fields.take("prompt")?.ok_or_else(|| ApiError::invalid("prompt", "missing: give a text"))?;
    ["keep_alive", "options"].iter().for_each(|name| fields.ignore(name));
    let noted = api.unknown_fields.note(fields.finish())?;
    principal.may_use(api.completer.model().names())?;
    let named = |error: ApiError| error.about("input", "prompt");
    let prompt = encode(&api, Given::Text(text)).await.map_err(|error| named(error.into()))?;
    let embedded = embed_all(&api, &principal, vec![prompt]).await.map_err(named)?;
    let embedding = embedded.vectors.into_iter().next().unwrap_or_default();
    Ok(noted.tell(Json(Older { embedding }).into_response()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_to_read_is_no_input() {
        let count = |input: Value| inputs(&mut Fields::of("input", input)).map(|inputs| inputs.len());
        for (input, expected) in [(json!([]), 0), (json!(""), 0), (Value::Null, 0), (json!("a"), 1)] {
            assert_eq!(count(input.clone()), Ok(expected), "{input}");
        }
        assert!(count(json!(1)).is_err());
    }
}
