//! `GET /v1/models`.

use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::{Value, json};

use super::{Api, error::ApiError};
use crate::text::ServedModel;

pub(super) async fn list(State(api): State<Api>) -> Json<Value> {
    Json(json!({"object": "list", "data": [object(api.completer.model())]}))
}

pub(super) async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let model = api.completer.model();
    match id == model.id() {
        true => Ok(Json(object(model))),
        false => Err(ApiError::model_not_found(&id, model.id())),
    }
}

fn object(model: &ServedModel) -> Value {
    json!({
        "id": model.id(),
        "object": "model",
        "created": model.created(),
        "owned_by": "llama-swarm",
        "context_length": model.context_length(),
        "digest": model.digest(),
    })
}
