//! What comes of tokens, and what is refused before there are any.

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
    Arc::new(ServedModel::for_tests(&path))
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
            CompletionEvent::Finished { reason, completion_tokens, stop: stopped_at } => {
                assert_eq!(
                    stopped_at.as_deref(),
                    stop.first().copied().filter(|_| reason == FinishReason::End)
                );
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
