//! What a text is like, as numbers.

use futures::StreamExt;
use swarm_types::{SamplingParams, TokenId};

use super::{Completer, CompletionRequest};
use crate::{
    clients::Principal,
    generation::{GenerationError, GenerationEvent, Operation},
    text::TextError,
};

impl Completer {
    /// The first tokens of a text, as many as the context holds.
    ///
    /// # Errors
    /// `input` when it cannot be tokenized.
    pub(crate) async fn encode_cut(&self, text: String) -> Result<Vec<TokenId>, GenerationError> {
        let context = self.model().context_length() as usize;
        let encoded = self.blocking(move |model| {
            // What is behind it could only be cut off again.
            let enough = (context + 1).saturating_mul(model.tokenizer().longest_token());
            let mut tokens = model.tokenizer().encode(beginning(&text, enough))?;
            tokens.truncate(context);
            Ok::<_, TextError>(tokens)
        });
        encoded.await?.map_err(|error| GenerationError::invalid(Operation::Embeddings.input(), error))
    }

    /// Whether the model can read so many tokens for an embedding.
    ///
    /// # Errors
    /// Names the field and what is wrong with it.
    pub fn check_embedding(&self, principal: &Principal, tokens: &[TokenId]) -> Result<(), GenerationError> {
        self.check(&reading(principal.clone(), tokens.to_vec()))
    }

    /// The mean of the hidden states of all positions, behind the last layer and the final norm, at length 1: f32
    /// `[hidden]`.
    ///
    /// # Errors
    /// What is refused, by field; or what failed.
    pub async fn embed(
        &self,
        principal: Principal,
        tokens: Vec<TokenId>,
    ) -> Result<Vec<f32>, GenerationError> {
        let count = tokens.len() as f64;
        let mut events = self.start_pooling(reading(principal, tokens)).await?;
        let mut sum: Vec<f64> = vec![];
        while let Some(event) = events.next().await {
            if let GenerationEvent::Pooled(more) = event? {
                sum.resize(more.len(), 0.0);
                sum.iter_mut().zip(&more).for_each(|(sum, more)| *sum += more);
            }
        }
        if sum.is_empty() {
            return Err(GenerationError::Internal { message: "the swarm gave no hidden states".into() });
        }
        let length = sum.iter().map(|number| (number / count).powi(2)).sum::<f64>().sqrt();
        let scale = if length > 0.0 { 1.0 / (count * length) } else { 0.0 };
        Ok(sum.into_iter().map(|number| (number * scale) as f32).collect())
    }
}

/// At most so many bytes of a text, up to the end of a character.
fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Reads a prompt and goes on with nothing.
fn reading(principal: Principal, prompt: Vec<TokenId>) -> CompletionRequest {
    CompletionRequest {
        principal,
        operation: Operation::Embeddings,
        prompt,
        sampling: SamplingParams::greedy(),
        grammar: None,
        max_tokens: Some(0),
        stop: vec![],
        stop_tokens: vec![],
        ignore_eos: false,
        named_tokens: vec![],
        score_prompt: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (bytes, expected) in [(0, ""), (1, "a"), (2, "a"), (3, "aé"), (9, "aé")] {
            assert_eq!(beginning("aé", bytes), expected, "{bytes}");
        }
    }
}
