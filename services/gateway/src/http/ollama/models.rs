//! `GET /api/tags`, `GET /api/ps`, `POST /api/show` and `GET /api/version`: the one model that there is.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    clients::Principal,
    http::{Api, error::ApiError, fields::Fields},
    text::ServedModel,
};

/// What Ollama puts behind a name that has nothing behind it.
const LATEST: &str = ":latest";
/// It stays for as long as its workers do.
const NEVER: &str = "9999-12-31T23:59:59Z";

/// The name as it was asked for. It must be one of the served model's, or that with `:latest`.
pub(super) fn take_name(fields: &mut Fields, api: &Api) -> Result<String, ApiError> {
    let names = ["model", "name"];
    let asked = fields.take_either(&names, |fields, name| fields.take::<String>(name))?;
    let model = api.completer.model();
    let Some(asked) = asked else { return Ok(shown(model)) };
    let bare = asked.strip_suffix(LATEST).unwrap_or(&asked);
    match api.serves(&asked) || api.serves(bare) {
        true => Ok(asked),
        false => Err(ApiError::model_not_found(&asked, model.id())),
    }
}

fn shown(model: &ServedModel) -> String {
    let name = model.id();
    if name.contains(':') { name.into() } else { format!("{name}{LATEST}") }
}

/// The served model, where the client may use it.
pub(in crate::http) async fn list(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
) -> Json<Value> {
    Json(json!({"models": usable(&api, &principal).map(entry).into_iter().collect::<Vec<_>>()}))
}

/// The same, while the swarm can answer.
pub(in crate::http) async fn running(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
) -> Json<Value> {
    let ready = api.generator.readiness().is_ok();
    let model = usable(&api, &principal).filter(|_| ready).map(|model| {
        let mut entry = entry(model);
        entry["expires_at"] = NEVER.into();
        // It lies in the workers' memory.
        entry["size_vram"] = 0.into();
        entry["context_length"] = model.context_length().into();
        entry
    });
    Json(json!({"models": model.into_iter().collect::<Vec<_>>()}))
}

pub(in crate::http) async fn show(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    take_name(&mut fields, &api)?;
    for name in ["verbose", "system", "template", "options"] {
        fields.ignore(name);
    }
    let noted = api.unknown_fields.note(fields.finish())?;
    let model = api.completer.model();
    principal.may_use(model.names())?;
    Ok(noted.tell(Json(told(model)).into_response()))
}

/// This gateway's.
pub(in crate::http) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

fn usable<'a>(api: &'a Api, principal: &Principal) -> Option<&'a ServedModel> {
    Some(api.completer.model()).filter(|model| principal.may_use(model.names()).is_ok())
}

fn entry(model: &ServedModel) -> Value {
    let name = shown(model);
    json!({
        "name": name, "model": name, "modified_at": modified(model), "size": model.facts().bytes,
        "digest": model.digest(), "details": details(model),
    })
}

fn told(model: &ServedModel) -> Value {
    let facts = model.facts();
    let template = facts.template.clone().unwrap_or_default();
    let mut info = Map::new();
    info.insert("general.architecture".into(), facts.architecture.clone().into());
    info.insert("general.parameter_count".into(), facts.parameters.into());
    info.insert(format!("{}.context_length", facts.architecture), model.context_length().into());
    info.insert(format!("{}.embedding_length", facts.architecture), facts.hidden.into());
    let speaks_of = |words: &[&str]| words.iter().any(|word| template.contains(word));
    // A model whose template knows nothing of tools is told of them in the system prompt.
    let mut capabilities = vec!["completion", "tools"];
    if speaks_of(&["enable_thinking", "reasoning_content", "<think>"]) {
        capabilities.push("thinking");
    }
    json!({
        "modelfile": "", "parameters": "", "template": template, "license": "",
        "details": details(model), "model_info": info, "capabilities": capabilities,
        "modified_at": modified(model),
    })
}

fn details(model: &ServedModel) -> Value {
    let facts = model.facts();
    json!({
        "parent_model": "", "format": "gguf", "family": facts.architecture,
        "families": [facts.architecture], "parameter_size": size(facts.parameters),
        "quantization_level": facts.stored_as,
    })
}

fn modified(model: &ServedModel) -> String {
    let made = i64::try_from(model.created()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    made.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// A count of weights as people say it.
fn size(parameters: u64) -> String {
    let count = parameters as f64;
    match parameters {
        1_000_000_000.. => format!("{:.1}B", count / 1e9),
        1_000_000.. => format!("{:.2}M", count / 1e6),
        1_000.. => format!("{:.2}K", count / 1e3),
        _ => parameters.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use gguf::tiny::TinyModel;

    use super::*;
    use crate::http::openapi::misfits;

    #[test]
    fn weights_are_counted_as_people_do() {
        let told = [(999, "999"), (1_500, "1.50K"), (134_515_008, "134.52M"), (8_030_261_312, "8.0B")];
        for (count, expected) in told {
            assert_eq!(size(count), expected);
        }
    }

    #[test]
    fn a_model_is_shown_as_its_file_says() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel::default().write(&path).expect("written");
        let model = ServedModel::for_tests(&path).named(vec!["small".into()]);
        let entry = entry(&model);
        let list = json!({"models": [entry]});
        assert!(misfits("/api/tags", Some("200"), &list).is_empty(), "{list}");
        assert_eq!(entry["name"], "small:latest");
        assert_eq!(entry["size"], std::fs::metadata(&path).expect("there").len());
        let told = told(&model);
        assert!(misfits("/api/show", Some("200"), &told).is_empty(), "{told}");
        assert_eq!(told["model_info"]["llama.context_length"], model.context_length());
        assert_eq!(told["capabilities"][0], "completion");
    }
}
