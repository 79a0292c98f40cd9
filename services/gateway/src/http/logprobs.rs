//! Log-probabilities as the two APIs write them.

use serde_json::{Map, Value, json};
use swarm_types::{TargetScore, TokenId, TokenLogprob};

use crate::{
    completion::PlacedToken,
    text::{Detokenizer, Tokenizer},
};

/// Likeliest tokens that a chat completion reports at each place.
pub(super) fn chat(tokens: &[PlacedToken], top: usize, tokenizer: &Tokenizer) -> Value {
    let entry = |token: TokenId, logprob: f32| {
        let bytes = tokenizer.bytes(token);
        json!({"token": tokenizer.name(token), "logprob": finite(logprob), "bytes": bytes})
    };
    let token = |placed: &PlacedToken| {
        let mut own = entry(placed.token.token, placed.token.logprob.unwrap_or(f32::MIN));
        let likeliest = placed.token.top.iter().take(top);
        own["top_logprobs"] = likeliest.map(|other| entry(other.token, other.logprob)).collect();
        own
    };
    json!({"content": tokens.iter().map(token).collect::<Vec<_>>(), "refusal": null})
}

/// The four parallel lists of a plain completion.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Lists {
    tokens: Vec<String>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<usize>,
}

impl Lists {
    /// A prompt that is echoed. Its first token has nothing before it that could make it likely.
    pub(super) fn prompt(
        prompt: &[TokenId],
        scores: &[TargetScore],
        top: usize,
        tokenizer: &Tokenizer,
    ) -> Self {
        let mut lists = Self::default();
        // Of a character over several tokens, each of these begins where it does.
        let (mut offset, mut characters) = (0, Detokenizer::default());
        let unscored = prompt.first().map(|token| (*token, None));
        let scored = scores.iter().map(|score| (score.target.token, Some(score)));
        for (token, score) in unscored.into_iter().chain(scored) {
            let logprob = score.map(|score| score.target.logprob);
            let likeliest = score.map(|score| score.top.as_slice());
            lists.push(token, logprob, likeliest, offset, top, tokenizer);
            offset += characters.push(tokenizer.bytes(token)).chars().count();
        }
        lists
    }

    /// Adds generated tokens; `before` is how many characters come before the generated text.
    pub(super) fn extend(
        &mut self,
        tokens: &[PlacedToken],
        before: usize,
        top: usize,
        tokenizer: &Tokenizer,
    ) {
        for PlacedToken { token, offset } in tokens {
            self.push(token.token, token.logprob, Some(&token.top), before + offset, top, tokenizer);
        }
    }

    fn push(
        &mut self,
        token: TokenId,
        logprob: Option<f32>,
        likeliest: Option<&[TokenLogprob]>,
        offset: usize,
        top: usize,
        tokenizer: &Tokenizer,
    ) {
        let top = likeliest.map(|likeliest| {
            let named = likeliest.iter().take(top);
            let named = named.map(|other| (key(other.token, tokenizer), finite(other.logprob).into()));
            Value::Object(named.collect::<Map<_, _>>())
        });
        self.tokens.push(key(token, tokenizer));
        self.token_logprobs.push(logprob.map(finite).into());
        self.top_logprobs.push(top.into());
        self.text_offset.push(offset);
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        })
    }
}

/// A token's text. Tokens that are no text by themselves must not fall together, so they show their bytes, as
/// OpenAI's API does.
fn key(token: TokenId, tokenizer: &Tokenizer) -> String {
    match std::str::from_utf8(tokenizer.bytes(token)) {
        Ok(_) => tokenizer.name(token),
        Err(_) => {
            let bytes = tokenizer.bytes(token).iter().map(|byte| format!("\\x{byte:02x}"));
            format!("bytes:{}", bytes.collect::<String>())
        }
    }
}

/// JSON has no infinity: a token that cannot be is as unlikely as a number can say.
fn finite(logprob: f32) -> f32 {
    logprob.max(f32::MIN)
}
