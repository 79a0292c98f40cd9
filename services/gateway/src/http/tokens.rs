//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, as vLLM has them: text and tokens without a model in
//! between.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};
use swarm_types::TokenId;

use super::{
    Api,
    chat::{messages, request},
    error::ApiError,
    fields::Fields,
    functions,
    ignored::Ignored,
    params,
};
use crate::{
    chat::{ChatRequest, Tool},
    clients::Principal,
    text::{Chat, Tokenizer},
};

/// Bytes of a text that becomes tokens: more than any context holds.
const MAX_TEXT: usize = 1 << 20;
/// Bytes of a text that comes of tokens: whatever `/tokenize` gives comes back, with the token that begins it.
const MAX_TOLD: usize = 2 << 20;

/// What is to be tokenized.
#[derive(Debug)]
enum Given {
    Text {
        text: String,
        /// With the token that begins a sequence, if the model wants that.
        begin: bool,
    },
    Chat {
        chat: Chat,
        tools: Vec<Tool>,
    },
}

/// What was asked.
#[derive(Debug)]
struct Asked {
    given: Given,
    with_names: bool,
}

/// The tokens.
#[derive(Serialize)]
struct Tokenized {
    count: usize,
    max_model_len: u32,
    tokens: Vec<u32>,
    token_strs: Option<Vec<String>>,
}

pub(super) async fn tokenize(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    params::take_model(&mut fields, &api)?;
    let (asked, ignored) = Asked::read(fields)?;
    let noted = api.unknown_fields.note(ignored)?;
    let model = api.completer.model();
    principal.may_use(model.names())?;
    let tokens = match asked.given {
        Given::Text { text, begin } => api.completer.tokenize(text, begin).await?,
        Given::Chat { chat, tools } => {
            let request = ChatRequest { tools, ..ChatRequest::new(principal.clone(), chat) };
            api.chatter.prompt(request).await?
        }
    };
    let count = tokens.len();
    principal.draw(count as u64)?;
    let named = api.completer.blocking(move |model| {
        let name = |token: &TokenId| model.tokenizer().name(*token);
        let names: Option<Vec<String>> = asked.with_names.then(|| tokens.iter().map(name).collect());
        (tokens, names)
    });
    let named = named.await.inspect_err(|_| principal.give_back(count as u64));
    let (tokens, token_strs) = named?;
    let tokens = tokens.into_iter().map(|token| token.0).collect();
    let answer = Tokenized { count, max_model_len: model.context_length(), tokens, token_strs };
    Ok(noted.tell(Json(answer).into_response()))
}

impl Asked {
    fn read(mut fields: Fields) -> Result<(Self, Ignored), ApiError> {
        let with_names = fields.take("return_token_strs")?.unwrap_or(false);
        let begin = fields.take("add_special_tokens")?;
        let (given, unknown) = match fields.take::<String>("prompt")? {
            Some(text) if text.len() > MAX_TEXT => {
                let what = format!("must have at most {MAX_TEXT} bytes, got {}", text.len());
                return Err(ApiError::invalid("prompt", what));
            }
            Some(text) => {
                fields.refuse_unless("messages", |_| false)?;
                (Given::Text { text, begin: begin.unwrap_or(true) }, vec![])
            }
            // What a template begins with is there once, whatever is said of it.
            None => chat(&mut fields)?,
        };
        let mut ignored = fields.finish();
        ignored.0.extend(unknown);
        Ok((Self { given, with_names }, ignored))
    }
}

fn chat(fields: &mut Fields) -> Result<(Given, Vec<String>), ApiError> {
    let (messages, unknown) = messages::take(fields)?;
    let tools = functions::nested(fields)?;
    fields.refuse_unless("chat_template", |_| false)?;
    let chat = Chat { messages, variables: request::variables(fields)?, next: request::next(fields)? };
    Ok((Given::Chat { chat, tools }, unknown))
}

pub(super) async fn detokenize(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    params::take_model(&mut fields, &api)?;
    let tokens: Vec<u32> =
        fields.take("tokens")?.ok_or_else(|| ApiError::invalid("tokens", "missing: give token ids"))?;
    let noted = api.unknown_fields.note(fields.finish())?;
    principal.may_use(api.completer.model().names())?;
    let count = tokens.len() as u64;
    principal.draw(count)?;
    let text = api.completer.blocking(move |model| text_of(&tokens, model.tokenizer())).await;
    let text = text.map_err(ApiError::from).flatten();
    let prompt = text.inspect_err(|_| principal.give_back(count))?;
    Ok(noted.tell(Json(json!({"prompt": prompt})).into_response()))
}

/// With the tokens that steer, so that the same tokens come of it.
fn text_of(tokens: &[u32], tokenizer: &Tokenizer) -> Result<String, ApiError> {
    let mut bytes = vec![];
    for id in tokens {
        let spelling = tokenizer.spelling(TokenId(*id)).ok_or_else(|| {
            let vocabulary = tokenizer.vocabulary();
            ApiError::invalid("tokens", format!("token {id} is not among the model's {vocabulary}"))
        })?;
        bytes.extend(spelling);
        if bytes.len() > MAX_TOLD {
            return Err(ApiError::invalid("tokens", format!("their text has more than {MAX_TOLD} bytes")));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a client needs to make prompts by itself.
pub(super) async fn info(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, ApiError> {
    let model = api.completer.model();
    principal.may_use(model.names())?;
    let tokenizer = model.tokenizer();
    let text = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    Ok(Json(json!({
        "bos_token": text(tokenizer.begin_text()),
        "eos_token": text(tokenizer.end_text()),
        "pad_token": text(tokenizer.padding_text()),
        "chat_template": model.facts().template,
        "model_max_length": model.context_length(),
        "vocab_size": tokenizer.vocabulary(),
    })))
}

#[cfg(test)]
mod tests {
    use gguf::{Header, tiny::TinyModel};

    use super::*;

    fn read(body: &Value) -> Result<(Asked, Ignored), ApiError> {
        Asked::read(Fields::parse(body.to_string().as_bytes())?)
    }

    #[test]
    fn a_text_or_a_conversation_is_taken() {
        let (asked, _) = read(&json!({"prompt": "a", "return_token_strs": true})).expect("taken");
        assert!(asked.with_names && matches!(asked.given, Given::Text { begin: true, .. }));
        let (asked, _) = read(&json!({"prompt": "", "add_special_tokens": false})).expect("taken");
        assert!(matches!(asked.given, Given::Text { begin: false, .. }));
        let messages = json!([{"role": "user", "content": "a"}]);
        let body = json!({"messages": messages, "tools": [{"function": {"name": "f"}}], "odd": 1});
        let (asked, ignored) = read(&body).expect("taken");
        assert!(matches!(asked.given, Given::Chat { tools, .. } if tools.len() == 1));
        assert_eq!(ignored.names(), ["odd"]);
        for (body, param) in [
            (json!({}), "messages"),
            (json!({"prompt": 1}), "prompt"),
            (json!({"prompt": "x".repeat(MAX_TEXT + 1)}), "prompt"),
            (json!({"prompt": "a", "messages": messages}), "messages"),
            (json!({"prompt": "a", "add_special_tokens": 1}), "add_special_tokens"),
        ] {
            assert_eq!(read(&body).expect_err(param).body_json()["error"]["param"], param);
        }
    }

    #[test]
    fn tokens_become_the_text_that_they_came_of() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel::default().write(&path).expect("written");
        let tokenizer = Tokenizer::from_header(&Header::read(&path).expect("valid")).expect("a tokenizer");
        let text = "<|im_start|>hello €<|im_end|>";
        let tokens: Vec<u32> =
            tokenizer.encode_as_it_is(text).expect("encoded").iter().map(|token| token.0).collect();
        assert_eq!(text_of(&tokens, &tokenizer), Ok(text.into()));
        for wrong in [vec![u32::MAX], vec![tokens[0]; MAX_TOLD]] {
            let error = text_of(&wrong, &tokenizer).expect_err("refused").body_json();
            assert_eq!(error["error"]["param"], "tokens");
        }
    }
}
