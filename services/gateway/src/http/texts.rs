//! Texts or tokens, one or several, as plain completions and embeddings take them.

use serde::Deserialize;
use swarm_types::TokenId;

use super::{error::ApiError, fields::Fields};

/// The forms that they may have.
#[derive(Deserialize)]
#[serde(untagged)]
enum Forms {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// One of them as it was given.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Given {
    Text(String),
    Tokens(Vec<TokenId>),
}

/// All of a field, if it is given.
pub(super) fn take(fields: &mut Fields, name: &str) -> Result<Option<Vec<Given>>, ApiError> {
    let Some(value) = fields.take_value(name) else { return Ok(None) };
    let tokens = |ids: Vec<u32>| Given::Tokens(ids.into_iter().map(TokenId).collect());
    Ok(Some(match Forms::deserialize(value) {
        Ok(Forms::Text(text)) => vec![Given::Text(text)],
        Ok(Forms::Texts(texts)) => texts.into_iter().map(Given::Text).collect(),
        Ok(Forms::Tokens(ids)) => vec![tokens(ids)],
        Ok(Forms::TokenLists(lists)) => lists.into_iter().map(tokens).collect(),
        Err(_) => return Err(ApiError::invalid(name, "must be a text, token ids, or a list of either")),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn all_forms_are_taken_that_clients_send() {
        let count = |value: Value| take(&mut Fields::of("x", value), "x").map(|all| all.map(|all| all.len()));
        assert_eq!(count(Value::Null), Ok(None));
        assert_eq!(count(json!([])), Ok(Some(0)));
        assert_eq!(count(json!("a")), Ok(Some(1)));
        assert_eq!(count(json!(["a", "b"])), Ok(Some(2)));
        assert_eq!(count(json!([1, 2, 3])), Ok(Some(1)));
        assert_eq!(count(json!([[1], [2, 3]])), Ok(Some(2)));
        for wrong in [json!({}), json!(7), json!([1, "a"]), json!([[-1]])] {
            let error = count(wrong.clone()).expect_err("refused").body_json();
            assert_eq!(error["error"]["param"], "x", "{wrong}");
        }
    }
}
