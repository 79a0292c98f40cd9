//! `POST /api/embed`, and `POST /api/embeddings` as it was before: what a text is like, as numbers.

use std::time::Instant;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{answer::nanos, models};
use crate::{
    clients::Principal,
    http::{
        Api,
        embeddings::{Given, check_dimensions, embed_all, inputs},
        error::ApiError,
        fields::Fields,
    },
};

pub(in crate::http) async fn embed(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let name = models::take_name(&mut fields, &api)?;
    let (inputs, dimensions) = (inputs(&mut fields)?, fields.take_count("dimensions")?);
    ["truncate", "keep_alive", "options"].iter().for_each(|name| fields.ignore(name));
    let noted = api.unknown_fields.note(fields.finish())?;
    principal.may_use(api.completer.model().names())?;
    let (vectors, tokens) = embed_all(&api, &principal, inputs).await?;
    for vector in &vectors {
        check_dimensions(dimensions, vector.len())?;
    }
    let answer = json!({
        "model": name, "embeddings": vectors, "prompt_eval_count": tokens,
        "total_duration": nanos(begun.elapsed()), "load_duration": 0,
    });
    Ok(noted.tell(Json(answer).into_response()))
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
    let embedded = embed_all(&api, &principal, vec![Given::Text(text)]).await;
    let (vectors, _) = embedded.map_err(|error| error.about("input", "prompt"))?;
    let vector = vectors.into_iter().next().map_or(Value::Null, |vector| json!(vector));
    Ok(noted.tell(Json(json!({"embedding": vector})).into_response()))
}
