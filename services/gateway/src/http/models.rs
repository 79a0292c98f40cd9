//! `GET /v1/models`.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use serde_json::{Value, json};

use super::{Api, error::ApiError};
use crate::{clients::Principal, text::ServedModel};

/// Those that the client may use.
pub(super) async fn list(State(api): State<Api>, Extension(principal): Extension<Principal>) -> Json<Value> {
    let model = Some(api.completer.model()).filter(|model| principal.may_use(model.id()).is_ok());
    let models: Vec<Value> = model.into_iter().map(object).collect();
    Json(json!({"object": "list", "data": models}))
}

pub(super) async fn one(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let model = api.completer.model();
    if id != model.id() {
        return Err(ApiError::model_not_found(&id, model.id()));
    }
    principal.may_use(&id)?;
    Ok(Json(object(model)))
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
