//! Chats from the request to the message, with a script for the swarm.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use gguf::tiny::TinyModel;
use serde_json::{Map, json};
use swarm_types::{Grammar, SamplingParams, TokenId};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::{
    clients::Principal,
    completion::Completer,
    generation::{
        FinishReason, Generate, GeneratedToken, GenerationError, GenerationEvent, GenerationRequest,
        GenerationStream,
    },
    text::{Chat, Message, ServedModel},
};

/// Answers with these tokens, and tells what it was asked.
struct Script {
    tokens: Vec<TokenId>,
    asked: mpsc::Sender<GenerationRequest>,
    /// Grammars read the model's file when the first of them comes.
    _model: TempDir,
}

impl Generate for Script {
    fn start(&self, request: GenerationRequest) -> BoxFuture<'_, Result<GenerationStream, GenerationError>> {
        let token = |token: &TokenId| {
            let (logprob, top, hops) = (None, vec![], vec![]);
            let token = GeneratedToken { token: *token, logprob, top, hops, round_trip: Duration::ZERO };
            Ok(GenerationEvent::Token(token))
        };
        let end = Ok(GenerationEvent::Finished(FinishReason::End));
        let events: Vec<_> = self.tokens.iter().map(token).chain([end]).collect();
        self.asked.try_send(request).expect("room for it");
        async move { Ok(stream::iter(events).boxed()) }.boxed()
    }
}

/// A chat with a model that answers with this text, and what the swarm is asked for.
fn chatter(answer: &str) -> (Chatter, mpsc::Receiver<GenerationRequest>) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("tiny.gguf");
    TinyModel { context: 4096, ..TinyModel::default() }.write(&path).expect("written");
    let model = Arc::new(ServedModel::for_tests(&path));
    let tokens = model.tokenizer().encode(answer).expect("encoded");
    let (asked, told) = mpsc::channel(8);
    (Chatter::new(Completer::new(model, Arc::new(Script { tokens, asked, _model: dir }))), told)
}

fn request() -> ChatRequest {
    let message = Message { role: "user".into(), content: "hi".into(), ..Message::default() };
    let chat = Chat { messages: vec![message], ..Chat::default() };
    ChatRequest {
        tools: vec![Tool {
            name: "get_time".into(),
            description: None,
            parameters: json!({"type": "object"}),
            strict: false,
        }],
        sampling: SamplingParams { seed: 7, ..SamplingParams::greedy() },
        ..ChatRequest::new(Principal::at(Ipv4Addr::LOCALHOST.into()), chat)
    }
}

async fn messages(chatter: &Chatter, request: ChatRequest) -> Vec<ChatMessage> {
    let choices = request.choices as usize;
    let chat = chatter.start(request).await.expect("started");
    assert!(chat.prompt_tokens > 0);
    collect(chat.events, choices).await.expect("no error")
}

const CALL: &str = "{\"name\": \"get_time\", \"arguments\": {\"zone\": \"UTC\"}}";

#[tokio::test]
async fn each_choice_has_its_calls_and_randomness_of_its_own() {
    let (chatter, mut asked) = chatter(&format!("<tool_call>\n{CALL}\n</tool_call>"));
    let messages = messages(&chatter, ChatRequest { choices: 2, ..request() }).await;
    assert_eq!(messages.len(), 2);
    for message in &messages {
        assert_eq!((message.content.as_str(), message.reason), ("", ChatFinish::ToolCalls));
        let [call] = message.tool_calls.as_slice() else { panic!("{message:?}") };
        assert_eq!((call.name.as_str(), call.arguments.as_str()), ("get_time", "{\"zone\": \"UTC\"}"));
        assert_eq!(message.tokens.len(), message.completion_tokens as usize);
    }
    assert_ne!(messages[0].tool_calls[0].id, messages[1].tool_calls[0].id);
    let seeds = [asked.recv().await, asked.recv().await].map(|request| request.map(|r| r.sampling.seed));
    assert_eq!(seeds, [Some(7), Some(8)]);
}

#[tokio::test]
async fn tools_are_in_the_prompt_unless_none_may_be_called() {
    let (chatter, mut asked) = chatter(CALL);
    let choice = |tool_choice| ChatRequest { tool_choice, ..request() };
    let called = messages(&chatter, choice(ToolChoice::Auto)).await;
    assert_eq!(called[0].reason, ChatFinish::ToolCalls);
    let with_tools = asked.recv().await.expect("asked").prompt.len();
    let plain = messages(&chatter, choice(ToolChoice::None)).await;
    assert_eq!((plain[0].content.as_str(), plain[0].reason), (CALL, ChatFinish::Stop));
    assert!(asked.recv().await.expect("asked").prompt.len() < with_tools);
}

#[tokio::test]
async fn a_call_that_must_be_is_held_by_a_grammar() {
    let (chatter, mut asked) = chatter(CALL);
    let named = ToolChoice::Function("get_time".into());
    for (tool_choice, parallel_tool_calls) in [(ToolChoice::Required, false), (named, true)] {
        let request = ChatRequest { tool_choice, parallel_tool_calls, ..request() };
        assert_eq!(messages(&chatter, request).await[0].tool_calls.len(), 1);
        let held = asked.recv().await.expect("asked").grammar;
        let head = r#""{\"name\": \"get_time\", \"arguments\": ""#;
        let object = Map::from_iter([("type".to_owned(), "object".into())]);
        let schema = grammar::on_one_line(object);
        let lark = format!("start: call\ncall: f0\nf0: {head} %json {schema} \"}}\"\n");
        assert_eq!(held, Some(Grammar::Lark(lark.into())));
    }
}

#[tokio::test]
async fn where_one_call_may_be_the_first_ends_the_choice() {
    let answer = format!("<tool_call>{CALL}</tool_call>");
    let (chatter, _asked) = chatter(&format!("{answer}{answer} and so on"));
    let all = messages(&chatter, request()).await.remove(0);
    assert_eq!((all.tool_calls.len(), all.content.as_str()), (2, " and so on"));
    let one = ChatRequest { parallel_tool_calls: false, choices: 2, ..request() };
    for one in messages(&chatter, one).await {
        assert_eq!((one.tool_calls.len(), one.reason), (1, ChatFinish::ToolCalls));
        assert!(one.completion_tokens < all.completion_tokens, "nothing is generated that nobody is told");
        assert_eq!(one.tokens.len(), one.completion_tokens as usize);
    }
}

#[tokio::test]
async fn the_stop_string_that_ends_a_message_is_told() {
    let (chatter, _asked) = chatter("So. END of it");
    for (stop, expected) in [(vec!["x".into(), "END".into()], Some("END")), (vec![], None)] {
        let message = messages(&chatter, ChatRequest { stop, ..request() }).await.remove(0);
        assert_eq!((message.stop.as_deref(), message.reason), (expected, ChatFinish::Stop));
    }
}

#[tokio::test]
async fn what_cannot_fit_is_refused_before_anything_is_made_of_it() {
    let (chatter, _asked) = chatter("");
    let message = Message { role: "user".into(), content: "word ".repeat(1000), ..Message::default() };
    let chat = Chat { messages: vec![message; 1000], ..Chat::default() };
    let wrong = ToolChoice::Function("unknown".into());
    let refused = chatter.start(ChatRequest { chat, tool_choice: wrong, ..request() }).await.err();
    let too_long = matches!(
        refused,
        Some(ChatError::Generation(GenerationError::ContextLength { field: "messages", .. }))
    );
    assert!(too_long, "{refused:?}");
}

#[tokio::test]
async fn what_must_be_of_a_certain_form_calls_nothing() {
    let (chatter, mut asked) = chatter(CALL);
    let grammar = Some(Grammar::JsonSchema("{}".into()));
    let answered = messages(&chatter, ChatRequest { grammar: grammar.clone(), ..request() }).await;
    assert_eq!((answered[0].content.as_str(), answered[0].reason), (CALL, ChatFinish::Stop));
    assert_eq!(asked.recv().await.expect("asked").grammar, grammar);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_field() {
    let (chatter, _asked) = chatter("");
    let grammar = Some(Grammar::JsonSchema("{}".into()));
    for (request, expected) in [
        (ChatRequest { tool_choice: ToolChoice::Required, tools: vec![], ..request() }, "tool_choice"),
        (ChatRequest { tool_choice: ToolChoice::Function("g".into()), ..request() }, "tool_choice"),
        (ChatRequest { tool_choice: ToolChoice::Required, grammar, ..request() }, "grammar"),
        (ChatRequest { tools: [request().tools, request().tools].concat(), ..request() }, "tools[1].name"),
    ] {
        match chatter.start(request).await.err() {
            Some(ChatError::Generation(GenerationError::Invalid { field, .. })) => {
                assert_eq!(field, expected)
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}
