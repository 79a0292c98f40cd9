//! `POST /v1/embeddings`: the mean of the model's hidden states, at length 1.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use swarm_types::TokenId;

use super::{
    Api,
    error::ApiError,
    fields::Fields,
    ignored::Ignored,
    params,
    short::short,
    texts::{self, Given},
};
use crate::{
    clients::Principal,
    generation::{GenerationError, Operation},
};

/// Texts of one request, as OpenAI's API has it.
const MAX_INPUTS: usize = 2048;
/// Numbers of one answer, which is in memory as a whole: 16 MiB, and as text about 50 MiB.
const MAX_NUMBERS: u64 = 4 << 20;
/// Texts of one request that are read at the same time; the others wait for them.
const AT_ONCE: usize = 8;

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

/// Embeddings of all inputs.
pub(super) struct Embedded {
    /// f32 `[hidden]` each, at length 1.
    pub(super) vectors: Vec<Vec<f32>>,
    /// Of all inputs together.
    pub(super) tokens: u64,
}

/// The answer.
#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Told,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Numbers as such, each in the shortest form that is the same f32, or their bytes.
#[derive(Serialize)]
#[serde(untagged)]
enum Told {
    Numbers(Vec<f32>),
    Bytes(String),
}

pub(super) async fn embed(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    params::take_model(&mut fields, &api)?;
    let (Asked { inputs, encoding, dimensions }, ignored) = Asked::read(fields)?;
    let noted = api.unknown_fields.note(ignored)?;
    let model = api.completer.model();
    principal.may_use(model.names())?;
    check(inputs.len(), dimensions, model.facts().hidden)?;
    let mut prompts = vec![];
    for given in inputs {
        prompts.push(encode(&api, given).await?);
    }
    let Embedded { vectors, tokens } = embed_all(&api, &principal, prompts).await?;
    let embedding =
        |(index, vector)| Embedding { object: "embedding", index, embedding: told(vector, encoding) };
    let answer = Answer {
        object: "list",
        data: vectors.into_iter().enumerate().map(embedding).collect(),
        model: model.id(),
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    };
    Ok(noted.tell(Json(answer).into_response()))
}

/// The tokens of an input. What is longer than the context is refused.
pub(super) async fn encode(api: &Api, given: Given) -> Result<Vec<TokenId>, GenerationError> {
    match given {
        Given::Text(text) => api.completer.encode_as(Operation::Embeddings, text).await,
        Given::Tokens(tokens) => Ok(tokens),
    }
}

/// The embeddings of all prompts, whose tokens are drawn from what the client may have.
pub(super) async fn embed_all(
    api: &Api,
    principal: &Principal,
    prompts: Vec<Vec<TokenId>>,
) -> Result<Embedded, ApiError> {
    for prompt in &prompts {
        api.completer.check_embedding(principal, prompt)?;
    }
    let tokens = prompts.iter().map(|prompt| prompt.len() as u64).sum();
    principal.draw(tokens)?;
    let vectors = embed_each(api, principal, prompts).await;
    Ok(Embedded { vectors: vectors.inspect_err(|_| principal.give_back(tokens))?, tokens })
}

async fn embed_each(
    api: &Api,
    principal: &Principal,
    prompts: Vec<Vec<TokenId>>,
) -> Result<Vec<Vec<f32>>, GenerationError> {
    let all = prompts.into_iter().map(|prompt| api.completer.embed(principal.clone(), prompt));
    stream::iter(all).buffered(AT_ONCE).try_collect().await
}

impl Asked {
    /// All fields but the model's name.
    fn read(mut fields: Fields) -> Result<(Self, Ignored), ApiError> {
        let encoding = match fields.take::<String>("encoding_format")?.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(other) => {
                let message = format!("must be float or base64, got {:?}", short(other));
                return Err(ApiError::invalid("encoding_format", message));
            }
        };
        let dimensions = fields.take_count("dimensions")?;
        let inputs = match texts::take(&mut fields, "input")? {
            None => return Err(ApiError::invalid("input", "missing: give a text")),
            Some(inputs) if inputs.is_empty() => {
                return Err(ApiError::invalid("input", "must have at least one text"));
            }
            Some(inputs) => inputs,
        };
        fields.ignore("user");
        Ok((Self { inputs, encoding, dimensions }, fields.finish()))
    }
}

/// Whether so many inputs may be in one request to a model with hidden states of this size, and whether that is the
/// size that is wanted: hidden states cannot be cut short, their first numbers alone say little.
pub(super) fn check(inputs: usize, dimensions: Option<u32>, hidden: u32) -> Result<(), ApiError> {
    if let Some(wanted) = dimensions.filter(|wanted| *wanted != hidden) {
        return Err(ApiError::invalid("dimensions", format!("this model has {hidden}, got {wanted}")));
    }
    let room = MAX_NUMBERS / u64::from(hidden.max(1));
    let most = MAX_INPUTS.min(usize::try_from(room).unwrap_or(MAX_INPUTS));
    match inputs <= most {
        true => Ok(()),
        false => {
            let what = format!(
                "must be at most {most} texts: a request is answered with {MAX_NUMBERS} numbers at most, and this \
                 model has {hidden} for each text; got {inputs}"
            );
            Err(ApiError::invalid("input", what))
        }
    }
}

fn told(vector: Vec<f32>, encoding: Encoding) -> Told {
    match encoding {
        Encoding::Float => Told::Numbers(vector),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Told::Bytes(BASE64_STANDARD.encode(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        for (body, param) in [
            (json!({}), "input"),
            (json!({"input": []}), "input"),
            (json!({"input": Value::Null}), "input"),
            (json!({"input": {}}), "input"),
            (json!({"input": "a", "encoding_format": "int8"}), "encoding_format"),
            (json!({"input": "a", "dimensions": -1}), "dimensions"),
        ] {
            let fields = Fields::parse(body.to_string().as_bytes()).expect("an object");
            let error = Asked::read(fields).err().expect(param).body_json();
            assert_eq!(error["error"]["param"], param, "{body}");
        }
    }

    #[test]
    fn numbers_are_told_in_their_shortest_form_or_as_their_bytes() {
        let text = |told: Told| serde_json::to_string(&told).expect("JSON");
        assert_eq!(text(told(vec![0.1, -1.0], Encoding::Float)), "[0.1,-1.0]");
        assert_eq!(text(told(vec![0.5, -1.0], Encoding::Base64)), r#""AAAAPwAAgL8=""#);
    }

    #[test]
    fn a_request_has_a_bound_and_hidden_states_one_size() {
        assert!(check(1, Some(3), 3).is_ok() && check(MAX_INPUTS, None, 2048).is_ok());
        for (inputs, dimensions, hidden, param) in [
            (1, Some(2), 3, "dimensions"),
            (MAX_INPUTS + 1, None, 64, "input"),
            (MAX_INPUTS, None, 4096, "input"),
        ] {
            let error = check(inputs, dimensions, hidden).expect_err(param).body_json();
            assert_eq!(error["error"]["param"], param);
        }
    }
}
