//! `POST /v1/embeddings`: the mean of the model's hidden states, at length 1.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use swarm_types::TokenId;

use super::{Api, error::ApiError, fields::Fields, ignored::Ignored};
use crate::{clients::Principal, generation::Operation};

/// Texts of one request, as OpenAI's API has it.
const MAX_INPUTS: usize = 2048;
/// Texts of one request that are read at the same time; the others wait for them.
const AT_ONCE: usize = 8;

/// The forms that an input may have.
#[derive(Deserialize)]
#[serde(untagged)]
enum Inputs {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// One input as it was given.
pub(super) enum Given {
    Text(String),
    Tokens(Vec<TokenId>),
}

/// How numbers are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    Float,
    Base64,
}

/// What was asked.
struct Asked {
    inputs: Vec<Given>,
    encoding: Encoding,
    dimensions: Option<u32>,
}

pub(super) async fn embed(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let (asked, ignored) = Asked::read(fields, &api)?;
    let noted = api.unknown_fields.note(ignored)?;
    let model = api.completer.model();
    principal.may_use(model.names())?;
    let (vectors, tokens) = embed_all(&api, &principal, asked.inputs).await?;
    let mut data = vec![];
    for (index, vector) in vectors.into_iter().enumerate() {
        check_dimensions(asked.dimensions, vector.len())?;
        data.push(json!({"object": "embedding", "index": index, "embedding": told(&vector, asked.encoding)}));
    }
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    let answer = json!({"object": "list", "data": data, "model": model.id(), "usage": usage});
    Ok(noted.tell(Json(answer).into_response()))
}

/// The embeddings of all inputs, drawn from what the client may have, and how many tokens they have.
pub(super) async fn embed_all(
    api: &Api,
    principal: &Principal,
    inputs: Vec<Given>,
) -> Result<(Vec<Vec<f32>>, u64), ApiError> {
    let mut prompts = vec![];
    for given in inputs {
        prompts.push(match given {
            Given::Text(text) => api.completer.encode_as(Operation::Embeddings, text).await?,
            Given::Tokens(tokens) => tokens,
        });
    }
    for prompt in &prompts {
        api.completer.check_embedding(principal, prompt)?;
    }
    let tokens: u64 = prompts.iter().map(|prompt| prompt.len() as u64).sum();
    principal.draw(tokens)?;
    let vectors = embed_each(api, principal, prompts).await;
    Ok((vectors.inspect_err(|_| principal.give_back(tokens))?, tokens))
}

async fn embed_each(
    api: &Api,
    principal: &Principal,
    prompts: Vec<Vec<TokenId>>,
) -> Result<Vec<Vec<f32>>, ApiError> {
    let all = prompts.into_iter().map(|prompt| api.completer.embed(principal.clone(), prompt));
    let vectors: Result<Vec<_>, _> = stream::iter(all).buffered(AT_ONCE).try_collect().await;
    Ok(vectors?)
}

impl Asked {
    fn read(mut fields: Fields, api: &Api) -> Result<(Self, Ignored), ApiError> {
        let model = api.completer.model();
        if let Some(asked) = fields.take::<String>("model")?
            && !(api.any_model || model.is_called(&asked))
        {
            return Err(ApiError::model_not_found(&asked, model.id()));
        }
        let encoding = match fields.take::<String>("encoding_format")?.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(other) => {
                let message = format!("must be float or base64, got {other:?}");
                return Err(ApiError::invalid("encoding_format", message));
            }
        };
        let (inputs, dimensions) = (inputs(&mut fields)?, fields.take_count("dimensions")?);
        fields.ignore("user");
        Ok((Self { inputs, encoding, dimensions }, fields.finish()))
    }
}

pub(super) fn inputs(fields: &mut Fields) -> Result<Vec<Given>, ApiError> {
    let value =
        fields.take_value("input").ok_or_else(|| ApiError::invalid("input", "missing: give a text"))?;
    let list = |ids: Vec<u32>| Given::Tokens(ids.into_iter().map(TokenId).collect());
    let inputs: Vec<Given> = match Inputs::deserialize(value) {
        Ok(Inputs::Text(text)) => vec![Given::Text(text)],
        Ok(Inputs::Texts(texts)) => texts.into_iter().map(Given::Text).collect(),
        Ok(Inputs::Tokens(ids)) => vec![list(ids)],
        Ok(Inputs::TokenLists(lists)) => lists.into_iter().map(list).collect(),
        Err(_) => {
            return Err(ApiError::invalid("input", "must be a text, a list of texts, or tokens as numbers"));
        }
    };
    match inputs.len() {
        1..=MAX_INPUTS => Ok(inputs),
        count => Err(ApiError::invalid("input", format!("must be 1 to {MAX_INPUTS} texts, got {count}"))),
    }
}

/// The model's hidden states cannot be cut short: their first numbers alone say little.
pub(super) fn check_dimensions(wanted: Option<u32>, given: usize) -> Result<(), ApiError> {
    match wanted {
        Some(wanted) if wanted as usize != given => {
            Err(ApiError::invalid("dimensions", format!("this model has {given}, got {wanted}")))
        }
        _ => Ok(()),
    }
}

fn told(vector: &[f32], encoding: Encoding) -> Value {
    match encoding {
        Encoding::Float => json!(vector),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            BASE64_STANDARD.encode(bytes).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_taken_in_all_the_forms_that_clients_send() {
        let read = |value: Value| inputs(&mut Fields::of("input", value)).map(|inputs| inputs.len());
        assert_eq!(read(json!("a")), Ok(1));
        assert_eq!(read(json!(["a", "b"])), Ok(2));
        assert_eq!(read(json!([1, 2, 3])), Ok(1));
        assert_eq!(read(json!([[1], [2, 3]])), Ok(2));
        for wrong in [json!([]), json!({}), json!(7), json!([1, "a"]), json!([[-1]]), Value::Null] {
            let error = read(wrong.clone()).expect_err("refused").body_json();
            assert_eq!(error["error"]["param"], "input", "{wrong}");
        }
    }

    #[test]
    fn numbers_are_told_as_such_or_as_their_bytes() {
        assert_eq!(told(&[0.5, -1.0], Encoding::Float), json!([0.5, -1.0]));
        assert_eq!(told(&[0.5, -1.0], Encoding::Base64), json!("AAAAPwAAgL8="));
        assert!(check_dimensions(Some(3), 3).is_ok() && check_dimensions(None, 3).is_ok());
        assert!(check_dimensions(Some(2), 3).is_err());
    }
}
