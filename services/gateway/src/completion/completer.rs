//! Turns a prompt in text into a continuation in text.

use std::{num::NonZero, pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use grammar::GrammarError;
use swarm_types::{Grammar, SamplingParams, TargetScore, TokenId};
use tokio::sync::Semaphore;

use super::assembler::{Assembler, TextChunk};
use crate::{
    clients::Principal,
    generation::{
        FinishReason, Generate, GenerationError, GenerationEvent, GenerationRequest, GenerationStream,
        Operation,
    },
    text::{Chat, Rendered, ServedModel, TextError},
};

#[cfg(test)]
mod tests;

/// Of all stop strings together: they are compared with the end of the text at every token.
const MAX_STOP_BYTES: usize = 8 << 10;

/// The field that says what a text must be like, where whoever asks has no name of its own for it.
pub(crate) const GRAMMAR: &str = "grammar";

/// What a client wants to have continued.
#[derive(Clone, PartialEq, Debug)]
pub struct CompletionRequest {
    /// On whose account it runs.
    pub principal: Principal,
    /// For the trace only.
    pub operation: Operation,
    /// At least one token.
    pub prompt: Vec<TokenId>,
    /// How each token is picked.
    pub sampling: SamplingParams,
    /// What the text must be like.
    pub grammar: Option<Grammar>,
    /// Absent: as many as the context holds; that is the most there can be.
    pub max_tokens: Option<u32>,
    /// The text ends before the one of these that is complete first.
    pub stop: Vec<String>,
    /// Tokens that end it besides the model's end tokens.
    pub stop_tokens: Vec<TokenId>,
    /// Do not end at the model's end tokens.
    pub ignore_eos: bool,
    /// Score the prompt's own tokens and report this many of the likeliest at each place.
    pub score_prompt: Option<u32>,
    /// Tokens that steer the model, and whose names are part of the text all the same.
    pub named_tokens: Vec<TokenId>,
}

/// What happens in a completion, in order.
#[derive(Clone, PartialEq, Debug)]
pub enum CompletionEvent {
    /// Scores of the next prompt tokens, from the second on.
    PromptScores(Vec<TargetScore>),
    /// More text.
    Chunk(TextChunk),
    /// Nothing comes after it.
    Finished {
        /// `End`: at an end token or a stop string.
        reason: FinishReason,
        /// Tokens generated, those of a stop string included.
        completion_tokens: u32,
        /// The stop string that it ended at.
        stop: Option<String>,
    },
}

/// The events of one completion. It ends after `Finished` or after the first error. Dropping it cancels.
pub type CompletionStream = Pin<Box<dyn Stream<Item = Result<CompletionEvent, GenerationError>> + Send>>;

/// Completes text by the model that the swarm serves. Cheap to clone.
#[derive(Clone)]
pub struct Completer {
    model: Arc<ServedModel>,
    generator: Arc<dyn Generate>,
    strict_context: bool,
    /// Work on texts that may be done at once.
    places: Arc<Semaphore>,
}

impl Completer {
    /// Uses `model` for text and `generator` for tokens. Who asks for more tokens than the context holds gets as many
    /// as it holds.
    #[must_use]
    pub fn new(model: Arc<ServedModel>, generator: Arc<dyn Generate>) -> Self {
        // More at once would not be done sooner, and each may take many times the memory of its text.
        let places = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { model, generator, strict_context: false, places: Arc::new(Semaphore::new(places)) }
    }

    /// The same; with `strict`, who asks for more tokens than the context holds is refused.
    #[must_use]
    pub fn with_strict_context(self, strict: bool) -> Self {
        Self { strict_context: strict, ..self }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &ServedModel {
        &self.model
    }

    /// The tokens of a plain text.
    ///
    /// # Errors
    /// `prompt` when it cannot be tokenized; its length when it cannot fit into the context.
    pub async fn encode(&self, text: String) -> Result<Vec<TokenId>, GenerationError> {
        self.encode_as(Operation::TextCompletion, text).await
    }

    /// The same of the field that the operation reads.
    ///
    /// # Errors
    /// As [`Self::encode`], with that field.
    pub async fn encode_as(
        &self,
        operation: Operation,
        text: impl Into<Rendered>,
    ) -> Result<Vec<TokenId>, GenerationError> {
        let prompt = text.into();
        let encoded = self.blocking(move |model| model.encode_prompt(&prompt)).await?;
        encoded.map_err(|error| self.unread(operation.input(), error))
    }

    /// Why a text has no tokens.
    fn unread(&self, field: &'static str, error: TextError) -> GenerationError {
        let TextError::TooLong { least } = error else { return GenerationError::invalid(field, error) };
        let context_length = self.model.context_length();
        GenerationError::ContextLength { field, prompt_tokens: count(least), max_tokens: 1, context_length }
    }

    /// The tokens of a text of any length; with `begin` as [`Self::encode`] has them, without it the text's alone.
    ///
    /// # Errors
    /// `prompt` when it cannot be tokenized.
    pub async fn tokenize(&self, text: String, begin: bool) -> Result<Vec<TokenId>, GenerationError> {
        let encoded = self.blocking(move |model| match begin {
            true => model.tokenizer().encode(&text),
            false => model.tokenizer().encode_as_it_is(&text),
        });
        encoded.await?.map_err(|error| GenerationError::invalid("prompt", error))
    }

    /// The tokens of a conversation, up to where the answer begins.
    ///
    /// # Errors
    /// `messages` when the template refuses them; their length when they cannot fit into the context.
    pub async fn encode_chat(&self, chat: Chat) -> Result<Vec<TokenId>, GenerationError> {
        self.check_length("messages", chat.messages.iter().map(|message| message.content.len()).sum())?;
        let encode = move |model: &ServedModel| model.encode_prompt(&model.render(&chat)?);
        self.blocking(encode).await?.map_err(|error| self.unread("messages", error))
    }

    /// Starts a completion. Resolves when every hop has accepted it.
    ///
    /// # Errors
    /// What is refused, by field.
    pub async fn start(&self, request: CompletionRequest) -> Result<CompletionStream, GenerationError> {
        self.check(&request)?;
        if let Some(grammar) = &request.grammar {
            self.check_grammar(GRAMMAR, grammar).await?;
        }
        let assembler = Assembler::new(&request.stop, request.named_tokens.clone());
        let tokens = self.generator.start(self.generation(request, false)).await?;
        Ok(text(tokens, assembler, self.model.clone()))
    }

    /// Starts to sum up the hidden states of a prompt.
    pub(super) async fn start_pooling(
        &self,
        request: CompletionRequest,
    ) -> Result<GenerationStream, GenerationError> {
        self.check(&request)?;
        self.generator.start(self.generation(request, true)).await
    }

    fn generation(&self, request: CompletionRequest, pools: bool) -> GenerationRequest {
        let room = self.model.context_length().saturating_sub(count(request.prompt.len()));
        let own_end_tokens = self.model.tokenizer().end_tokens();
        // Behind a text that is complete by its grammar only an end token can come.
        let goes_on = request.ignore_eos && request.grammar.is_none();
        let own_end_tokens = if goes_on { &[] } else { own_end_tokens };
        let end_tokens = [own_end_tokens, &request.stop_tokens].concat();
        let mut sampling = request.sampling;
        if sampling.min_tokens > 0 {
            sampling.end_tokens = end_tokens.clone();
        }
        GenerationRequest {
            principal: request.principal,
            operation: request.operation,
            prompt: request.prompt,
            sampling,
            grammar: request.grammar,
            max_tokens: request.max_tokens.map_or(room, |asked| asked.min(room)),
            end_tokens,
            score_prompt: request.score_prompt,
            pools,
        }
    }

    /// Whether texts can be held to a grammar, which came as this field.
    ///
    /// # Errors
    /// Names the field and why not.
    pub async fn check_grammar(&self, field: &str, grammar: &Grammar) -> Result<(), GenerationError> {
        let ready = self.model.grammars().ready(grammar.clone()).await;
        ready.map(|_| ()).map_err(|error| match error {
            GrammarError::Invalid(_) | GrammarError::Stuck(_) => GenerationError::invalid(field, error),
            GrammarError::Vocabulary(_) | GrammarError::Internal(_) => {
                GenerationError::Internal { message: error.to_string() }
            }
        })
    }

    /// Whether a completion fits the model, before anything is started.
    ///
    /// # Errors
    /// Names the field that does not.
    pub fn check(&self, request: &CompletionRequest) -> Result<(), GenerationError> {
        let vocabulary = count(self.model.tokenizer().vocabulary());
        let unknown = |id: &&TokenId| id.0 >= vocabulary;
        if request.prompt.is_empty() {
            return Err(GenerationError::invalid(request.operation.input(), "must have at least one token"));
        }
        let ids = [
            (request.operation.input(), request.prompt.iter().find(unknown)),
            ("logit_bias", request.sampling.logit_bias.keys().find(unknown)),
            ("stop_token_ids", request.stop_tokens.iter().find(unknown)),
        ];
        for (field, id) in ids {
            if let Some(id) = id {
                return Err(GenerationError::invalid(
                    field,
                    format!("token {} is not among the model's {vocabulary}", id.0),
                ));
            }
        }
        check_stops(&request.stop)?;
        let prompt_tokens = count(request.prompt.len());
        // What is cut needs room for one token at least.
        let needed = match request.max_tokens {
            Some(asked) if self.strict_context => asked,
            Some(asked) => asked.min(1),
            None => 1,
        };
        let context_length = self.model.context_length();
        match prompt_tokens.checked_add(needed) {
            Some(positions) if positions <= context_length => Ok(()),
            _ => {
                let field = request.operation.input();
                let max_tokens = request.max_tokens.unwrap_or(needed);
                Err(GenerationError::ContextLength { field, prompt_tokens, max_tokens, context_length })
            }
        }
    }

    /// A text so long that it cannot fit is refused before its tokens are counted, which takes time.
    pub(crate) fn check_length(&self, field: &'static str, bytes: usize) -> Result<(), GenerationError> {
        let prompt_tokens = count(bytes / self.model.tokenizer().longest_token());
        let context_length = self.model.context_length();
        match prompt_tokens <= context_length {
            true => Ok(()),
            false => {
                Err(GenerationError::ContextLength { field, prompt_tokens, max_tokens: 1, context_length })
            }
        }
    }

    /// Tokenizing a long text takes a while, so it must not hold up the runtime; and memory, so it waits for its turn.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ServedModel) -> T + Send + 'static,
    ) -> Result<T, GenerationError> {
        let failed = |what: String| GenerationError::Internal { message: what };
        let place = self.places.clone().acquire_owned().await.map_err(|error| failed(error.to_string()))?;
        let model = self.model.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Kept until the work is done, also when nobody waits for it any more.
            let _place = place;
            work(&model)
        });
        done.await.map_err(|error| failed(error.to_string()))
    }
}

fn check_stops(stops: &[String]) -> Result<(), GenerationError> {
    let bytes: usize = stops.iter().map(String::len).sum();
    if stops.iter().any(String::is_empty) {
        return Err(GenerationError::invalid("stop", "no string may be empty"));
    }
    match bytes <= MAX_STOP_BYTES {
        true => Ok(()),
        false => {
            let message =
                format!("the strings must have at most {MAX_STOP_BYTES} bytes together, got {bytes}");
            Err(GenerationError::invalid("stop", message))
        }
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Text for tokens. At a stop string the generation is dropped, which ends it on every hop.
fn text(mut tokens: GenerationStream, mut assembler: Assembler, model: Arc<ServedModel>) -> CompletionStream {
    let events = async_stream::stream! {
        let mut completion_tokens = 0;
        while let Some(event) = tokens.next().await {
            match event {
                Ok(GenerationEvent::PromptScores(scores)) => yield Ok(CompletionEvent::PromptScores(scores)),
                // Nothing here wants it.
                Ok(GenerationEvent::Pooled(_)) => {}
                Ok(GenerationEvent::Token(token)) => {
                    completion_tokens += 1;
                    let (chunk, stopped) = assembler.push(token, model.tokenizer());
                    yield Ok(CompletionEvent::Chunk(chunk));
                    if stopped {
                        drop(tokens);
                        let (reason, stop) = (FinishReason::End, assembler.stopped_at());
                        yield Ok(CompletionEvent::Finished { reason, completion_tokens, stop });
                        return;
                    }
                }
                Ok(GenerationEvent::Finished(reason)) => {
                    yield Ok(CompletionEvent::Chunk(assembler.finish()));
                    yield Ok(CompletionEvent::Finished { reason, completion_tokens, stop: None });
                    return;
                }
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
    };
    events.boxed()
}
