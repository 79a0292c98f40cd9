//! `GET /v1/models`.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use serde_json::{Value, json};

use super::{Api, error::ApiError};
use crate::{clients::Principal, text::ServedModel};

/// Those that the client may use, each under its first name.
pub(super) async fn list(State(api): State<Api>, Extension(principal): Extension<Principal>) -> Json<Value> {
    let model = Some(api.completer.model()).filter(|model| principal.may_use(model.names()).is_ok());
    let models: Vec<Value> = model.into_iter().map(|model| object(model, model.id())).collect();
    Json(json!({"object": "list", "data": models}))
}

pub(super) async fn one(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let model = api.completer.model();
    if !model.is_called(&id) {
        return Err(ApiError::model_not_found(&id, model.id()));
    }
    principal.may_use(model.names())?;
    Ok(Json(object(model, &id)))
}

/// Under one of its names.
fn object(model: &ServedModel, id: &str) -> Value {
    json!({
        "id": id,
        "object": "model",
        "created": model.created(),
        "owned_by": "llama-swarm",
        "context_length": model.context_length(),
        "digest": model.digest(),
    })
}
