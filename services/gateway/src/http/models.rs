//! `GET /v1/models`.

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
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
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let model = api.completer.model();
    // What is no text is no name.
    let id = path.map(|Path(id)| id).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use gguf::tiny::TinyModel;

    use super::*;
    use crate::http::openapi::misfits;

    #[test]
    fn a_model_is_shown_as_the_document_says() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel::default().write(&path).expect("written");
        let model = ServedModel::for_tests(&path);
        let shown = object(&model, "m");
        assert!(misfits("/v1/models/{id}", Some("200"), &shown).is_empty(), "{shown}");
        let list = json!({"object": "list", "data": [shown]});
        assert!(misfits("/v1/models", Some("200"), &list).is_empty(), "{list}");
    }
}
