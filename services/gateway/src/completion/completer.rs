//! Turns a prompt in text into a continuation in text.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use grammar::GrammarError;
use swarm_types::{Grammar, SamplingParams, TargetScore, TokenId};

use super::assembler::{Assembler, TextChunk};
use crate::{
    clients::Principal,
    generation::{
        FinishReason, Generate, GenerationError, GenerationEvent, GenerationRequest, GenerationStream,
        Operation,
    },
    text::{Chat, ServedModel},
};

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
}

impl Completer {
    /// Uses `model` for text and `generator` for tokens. Who asks for more tokens than the context holds gets as many
    /// as it holds.
    #[must_use]
    pub fn new(model: Arc<ServedModel>, generator: Arc<dyn Generate>) -> Self {
        Self { model, generator, strict_context: false }
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
        text: String,
    ) -> Result<Vec<TokenId>, GenerationError> {
        let field = operation.input();
        self.check_length(field, text.len())?;
        let encoded = self.blocking(move |model| model.tokenizer().encode(&text)).await?;
        encoded.map_err(|error| GenerationError::invalid(field, error))
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
        let encoded = self.blocking(move |model| model.encode_chat(&chat)).await?;
        encoded.map_err(|error| GenerationError::invalid("messages", error))
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

    /// Tokenizing a long text takes a while, so it must not hold up the runtime.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ServedModel) -> T + Send + 'static,
    ) -> Result<T, GenerationError> {
        let model = self.model.clone();
        let done = tokio::task::spawn_blocking(move || work(&model)).await;
        done.map_err(|error| GenerationError::Internal { message: error.to_string() })
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
                        yield Ok(CompletionEvent::Finished { reason: FinishReason::End, completion_tokens });
                        return;
                    }
                }
                Ok(GenerationEvent::Finished(reason)) => {
                    yield Ok(CompletionEvent::Chunk(assembler.finish()));
                    yield Ok(CompletionEvent::Finished { reason, completion_tokens });
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

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use futures::{FutureExt, future::BoxFuture, stream};
    use gguf::tiny::TinyModel;

    use super::*;
    use crate::generation::GeneratedToken;

    /// Answers with these tokens, whatever is asked.
    struct Script(Vec<TokenId>);

    impl Generate for Script {
        fn start(&self, _: GenerationRequest) -> BoxFuture<'_, Result<GenerationStream, GenerationError>> {
            let token = |token: &TokenId| {
                let (logprob, top, hops) = (None, vec![], vec![]);
                let token = GeneratedToken { token: *token, logprob, top, hops, round_trip: Duration::ZERO };
                Ok(GenerationEvent::Token(token))
            };
            let end = Ok(GenerationEvent::Finished(FinishReason::Length));
            let events: Vec<_> = self.0.iter().map(token).chain([end]).collect();
            async move { Ok(stream::iter(events).boxed()) }.boxed()
        }
    }

    fn model() -> Arc<ServedModel> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel::default().write(&path).expect("written");
        Arc::new(ServedModel::load(&path).expect("a model"))
    }

    fn request(stop: &[&str]) -> CompletionRequest {
        CompletionRequest {
            principal: Principal::at(Ipv4Addr::LOCALHOST.into()),
            operation: Operation::TextCompletion,
            prompt: vec![TokenId(10)],
            sampling: SamplingParams::greedy(),
            grammar: None,
            max_tokens: Some(64),
            stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
            stop_tokens: vec![],
            ignore_eos: false,
            score_prompt: None,
            named_tokens: vec![],
        }
    }

    /// Text, tokens shown with their offsets, reason, tokens counted.
    async fn complete(text: &str, stop: &[&str]) -> (String, Vec<(String, usize)>, FinishReason, u32) {
        let model = model();
        let tokens = model.tokenizer().encode(text).expect("encoded");
        let completer = Completer::new(model.clone(), Arc::new(Script(tokens)));
        let mut events = completer.start(request(stop)).await.expect("started");
        let (mut text, mut tokens) = (String::new(), vec![]);
        while let Some(event) = events.next().await {
            match event.expect("no error") {
                CompletionEvent::Chunk(chunk) => {
                    text += &chunk.text;
                    let placed = chunk.tokens.into_iter();
                    tokens.extend(placed.map(|t| (model.tokenizer().name(t.token.token), t.offset)));
                }
                CompletionEvent::Finished { reason, completion_tokens } => {
                    assert!(events.next().await.is_none(), "nothing comes after the end");
                    return (text, tokens, reason, completion_tokens);
                }
                CompletionEvent::PromptScores(_) => panic!("none were asked for"),
            }
        }
        panic!("it did not finish")
    }

    #[tokio::test]
    async fn text_comes_out_whole_with_every_token_in_its_place() {
        let (text, tokens, reason, count) = complete("héllo €uro", &[]).await;
        assert_eq!((text.as_str(), reason), ("héllo €uro", FinishReason::Length));
        assert_eq!(count as usize, tokens.len());
        assert!(tokens.is_sorted_by_key(|(_, offset)| *offset), "{tokens:?}");
        assert_eq!(tokens.last().map(|(_, offset)| *offset), Some(9));
    }

    #[tokio::test]
    async fn neither_text_nor_tokens_of_a_stop_string_come_out() {
        let (text, tokens, reason, count) = complete("abc END def", &["END"]).await;
        assert_eq!((text.as_str(), reason), ("abc ", FinishReason::End));
        let shown: String = tokens.iter().map(|(name, _)| name.as_str()).collect();
        assert!("abc ".starts_with(&shown), "{tokens:?}");
        assert!(count as usize > tokens.len(), "the tokens of the stop string count");
        let (text, _, reason, _) = complete("abc EN", &["END"]).await;
        assert_eq!((text.as_str(), reason), ("abc EN", FinishReason::Length));
    }

    #[tokio::test]
    async fn what_does_not_fit_the_model_is_refused_by_field() {
        let completer = Completer::new(model(), Arc::new(Script(vec![])));
        let field = |change: fn(&mut CompletionRequest)| {
            let mut wrong = request(&[]);
            change(&mut wrong);
            match completer.check(&wrong).expect_err("refused") {
                GenerationError::Invalid { field, .. } => field,
                other => other.cause().into(),
            }
        };
        assert_eq!(field(|r| r.prompt = vec![]), "prompt");
        assert_eq!(field(|r| r.prompt = vec![TokenId(u32::MAX)]), "prompt");
        assert_eq!(field(|r| r.sampling.logit_bias = [(TokenId(u32::MAX), 1.0)].into()), "logit_bias");
        assert_eq!(field(|r| r.stop = vec![String::new()]), "stop");
        assert_eq!(field(|r| r.stop = vec!["x".repeat(1000); 9]), "stop");
        assert_eq!(field(|r| r.stop_tokens = vec![TokenId(u32::MAX)]), "stop_token_ids");
        assert_eq!(field(|r| r.prompt = vec![TokenId(10); 100_000]), "context_length");
        let long = completer.encode("word ".repeat(100_000)).await.expect_err("too long");
        assert_eq!(long.cause(), "context_length");
    }

    #[test]
    fn more_tokens_than_fit_are_cut_to_what_fits_or_refused_where_that_is_wanted() {
        let completer = Completer::new(model(), Arc::new(Script(vec![])));
        let context = completer.model().context_length();
        let asks = |max_tokens: u32| CompletionRequest { max_tokens: Some(max_tokens), ..request(&[]) };
        for asked in [0, 1, context, u32::MAX] {
            assert_eq!(completer.check(&asks(asked)), Ok(()), "{asked}");
        }
        let full = CompletionRequest { prompt: vec![TokenId(10); context as usize], ..asks(u32::MAX) };
        assert!(matches!(completer.check(&full), Err(GenerationError::ContextLength { .. })));
        assert_eq!(completer.check(&CompletionRequest { max_tokens: Some(0), ..full }), Ok(()));
        let strict = completer.with_strict_context(true);
        assert_eq!(strict.check(&asks(context - 1)), Ok(()));
        let refused = strict.check(&asks(context)).expect_err("refused").to_string();
        assert!(refused.starts_with("This model's maximum context length is"), "{refused}");
    }
}
