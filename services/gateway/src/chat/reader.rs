//! Reads what a model writes: what it thinks, what it says, what it calls.

use uuid::Uuid;

use super::{
    api::{ChatChunk, ChatEvent, ChatFinish, Delta},
    calls::{Calls, Piece},
    thinking::{Part, Thinking},
};
use crate::{
    completion::{CompletionEvent, PlacedToken, TextChunk, TokenPath},
    generation::FinishReason,
};

/// Letters and digits of a call's id. Clients know it by its beginning.
const ID_LENGTH: usize = 24;

/// Reads one choice.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    thinking: Thinking,
    /// Where functions may be called.
    calls: Option<Calls>,
    /// Tokens of which nothing was told yet.
    waiting: Vec<PlacedToken>,
    completion_tokens: u32,
    reasoning_tokens: u32,
}

impl Reader {
    pub(super) fn new(thinking: Thinking, calls: Option<Calls>) -> Self {
        Self { thinking, calls, waiting: vec![], completion_tokens: 0, reasoning_tokens: 0 }
    }

    /// What becomes of an event. Each generated token's path is told once.
    pub(super) fn read(&mut self, event: CompletionEvent) -> Vec<ChatEvent> {
        match event {
            CompletionEvent::PromptScores(_) => vec![],
            CompletionEvent::Chunk(chunk) => {
                self.completion_tokens += u32::from(chunk.path.is_some());
                let mut events = self.chunk(chunk);
                if self.is_over() {
                    events.extend(self.finish(FinishReason::End, self.completion_tokens, None));
                }
                events
            }
            CompletionEvent::Finished { reason, completion_tokens, stop } => {
                self.finish(reason, completion_tokens, stop)
            }
        }
    }

    /// It has told the end, whatever may still come.
    pub(super) fn is_over(&self) -> bool {
        self.calls.as_ref().is_some_and(Calls::is_over)
    }

    fn finish(
        &mut self,
        reason: FinishReason,
        completion_tokens: u32,
        stop: Option<String>,
    ) -> Vec<ChatEvent> {
        let parts = self.thinking.finish();
        let mut deltas = self.deltas(parts);
        if let Some(calls) = &mut self.calls {
            deltas.extend(calls.finish().into_iter().map(delta));
        }
        if deltas.is_empty() && !self.waiting.is_empty() {
            deltas.push(Delta::Nothing);
        }
        let mut events = self.chunks(deltas, None);
        let (reason, reasoning_tokens) = (self.reason(reason), self.reasoning_tokens);
        events.push(ChatEvent::Finished { reason, completion_tokens, reasoning_tokens, stop });
        events
    }

    fn chunk(&mut self, TextChunk { text, tokens, path }: TextChunk) -> Vec<ChatEvent> {
        self.waiting.extend(tokens);
        let thought = self.thinking.thinks();
        let parts = self.thinking.push(&text);
        // The marks belong to the thinking.
        let thinks = thought || self.thinking.thinks();
        self.reasoning_tokens += u32::from(thinks && path.is_some());
        let mut deltas = self.deltas(parts);
        if deltas.is_empty() && path.is_some() {
            deltas.push(Delta::Nothing);
        }
        self.chunks(deltas, path)
    }

    fn deltas(&mut self, parts: Vec<Part>) -> Vec<Delta> {
        let mut deltas = vec![];
        for part in parts {
            match (part, &mut self.calls) {
                (Part::Thought(text), _) => deltas.push(Delta::Reasoning(text)),
                (Part::Said(text), None) => deltas.push(Delta::Content(text)),
                (Part::Said(text), Some(calls)) => deltas.extend(calls.push(&text).into_iter().map(delta)),
            }
        }
        deltas
    }

    /// The first has the path and, unless it tells nothing, all tokens.
    fn chunks(&mut self, deltas: Vec<Delta>, mut path: Option<TokenPath>) -> Vec<ChatEvent> {
        let last = deltas.len() == 1 && path.is_none();
        let chunk = |delta: Delta| {
            let tells = delta != Delta::Nothing || last;
            let tokens = if tells { std::mem::take(&mut self.waiting) } else { vec![] };
            ChatEvent::Chunk(ChatChunk { delta, tokens, path: path.take() })
        };
        deltas.into_iter().map(chunk).collect()
    }

    fn reason(&self, reason: FinishReason) -> ChatFinish {
        let calls = self.calls.as_ref().is_some_and(Calls::can_be_carried_out);
        match reason {
            FinishReason::Length => ChatFinish::Length,
            FinishReason::End if calls => ChatFinish::ToolCalls,
            FinishReason::End => ChatFinish::Stop,
        }
    }
}

fn delta(piece: Piece) -> Delta {
    match piece {
        Piece::Said(text) => Delta::Content(text),
        Piece::Call { index, name } => Delta::ToolCall { index, id: call_id(), name },
        Piece::Arguments { index, text } => Delta::Arguments { index, text },
    }
}

/// An id that no other call has.
fn call_id() -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("call_{}", &random[..ID_LENGTH])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use swarm_types::TokenId;

    use super::*;
    use crate::{chat::format::ToolFormat, generation::GeneratedToken};

    /// As the words come out, a token each.
    fn read(mut reader: Reader, words: &[&str], reason: FinishReason) -> Vec<ChatEvent> {
        let mut events = vec![];
        for (id, word) in (0u32..).zip(words) {
            let token = GeneratedToken {
                token: TokenId(id),
                logprob: None,
                top: vec![],
                hops: vec![],
                round_trip: Duration::ZERO,
            };
            let path = TokenPath { token: token.token, round_trip: Duration::ZERO, hops: vec![] };
            let tokens = vec![PlacedToken { token, offset: 0 }];
            let chunk = TextChunk { text: (*word).into(), tokens, path: Some(path) };
            events.extend(reader.read(CompletionEvent::Chunk(chunk)));
        }
        let completion_tokens = words.len() as u32;
        events.extend(reader.read(CompletionEvent::Finished { reason, completion_tokens, stop: None }));
        events
    }

    fn finish(events: &[ChatEvent]) -> (ChatFinish, u32) {
        match events.last() {
            Some(ChatEvent::Finished { reason, reasoning_tokens, .. }) => (*reason, *reasoning_tokens),
            other => panic!("it did not finish: {other:?}"),
        }
    }

    fn calls() -> Option<Calls> {
        Some(Calls::new(ToolFormat::Hermes, vec!["f".into()], false))
    }

    #[test]
    fn thinking_text_and_calls_are_told_apart_and_each_token_once() {
        let words =
            ["<think>", "hm", "</think>", "Wait.", "<tool", "_call>{\"name\": \"f\", \"arguments\": {", "}}"];
        let events = read(Reader::new(Thinking::maybe(), calls()), &words, FinishReason::End);
        assert_eq!(finish(&events), (ChatFinish::ToolCalls, 3));
        let (mut tokens, mut paths, mut deltas) = (vec![], vec![], vec![]);
        for event in events {
            let ChatEvent::Chunk(ChatChunk { delta, tokens: out, path }) = event else { continue };
            assert!(delta != Delta::Nothing || out.is_empty(), "tokens wait for what they say");
            tokens.extend(out.into_iter().map(|placed| placed.token.token.0));
            paths.extend(path.map(|path| path.token.0));
            deltas.extend((delta != Delta::Nothing).then_some(delta));
        }
        assert_eq!((tokens, paths), ((0..7).collect(), (0..7).collect()));
        let [Delta::Reasoning(_), Delta::Content(_), Delta::ToolCall { index: 0, id, name }, ..] =
            deltas.as_slice()
        else {
            panic!("{deltas:?}")
        };
        assert_eq!((name.as_str(), id.len()), ("f", "call_".len() + ID_LENGTH));
        let arguments = |index, text: &str| Delta::Arguments { index, text: text.into() };
        assert_eq!(deltas[3..], [arguments(0, "{"), arguments(0, "}")]);
    }

    #[test]
    fn it_ends_by_calls_only_where_one_is_complete_and_the_model_ended_it() {
        let whole = "<tool_call>{\"name\": \"f\", \"arguments\": {}}";
        let ends =
            |text: &str, reason| finish(&read(Reader::new(Thinking::never(), calls()), &[text], reason)).0;
        assert_eq!(ends(whole, FinishReason::End), ChatFinish::ToolCalls);
        assert_eq!(ends(whole, FinishReason::Length), ChatFinish::Length);
        assert_eq!(
            ends("<tool_call>{\"name\": \"f\", \"arguments\": {", FinishReason::End),
            ChatFinish::Stop
        );
        assert_eq!(ends("hi", FinishReason::End), ChatFinish::Stop);
    }

    #[test]
    fn it_ends_by_calls_only_where_all_of_them_can_be_carried_out() {
        let call = |arguments: &str| format!("<tool_call>{{\"name\": \"f\", \"arguments\": {arguments}");
        let (good, broken) = (call("{}}</tool_call>"), call("{\"a\": x}}</tool_call>"));
        for (text, expected) in [
            (good.clone() + &good, ChatFinish::ToolCalls),
            (good.clone() + "so", ChatFinish::ToolCalls),
            (broken.clone(), ChatFinish::Stop),
            (good.clone() + &broken, ChatFinish::Stop),
            (broken + &good, ChatFinish::Stop),
            (good + &call("{\"a"), ChatFinish::Stop),
        ] {
            let events = read(Reader::new(Thinking::never(), calls()), &[&text], FinishReason::End);
            assert_eq!(finish(&events).0, expected, "{text}");
        }
    }

    #[test]
    fn where_only_one_may_be_called_it_is_over_with_the_first() {
        let mut reader =
            Reader::new(Thinking::never(), Some(Calls::new(ToolFormat::Hermes, vec!["f".into()], true)));
        let path = TokenPath { token: TokenId(1), round_trip: Duration::ZERO, hops: vec![] };
        let mut push = |text: &str| {
            let chunk = TextChunk { text: text.into(), tokens: vec![], path: Some(path.clone()) };
            let events = reader.read(CompletionEvent::Chunk(chunk));
            (events, reader.is_over())
        };
        assert!(!push("So.<tool_call>{\"name\": \"f\", \"arguments\": {").1);
        let (events, over) = push("}} and more");
        assert!(over && matches!(events[0], ChatEvent::Chunk(_)), "{events:?}");
        let (reason, completion_tokens, reasoning_tokens, stop) = (ChatFinish::ToolCalls, 2, 0, None);
        let end = ChatEvent::Finished { reason, completion_tokens, reasoning_tokens, stop };
        assert_eq!(events[1..], [end]);
    }

    #[test]
    fn tokens_that_say_nothing_come_out_at_the_end() {
        let events = read(Reader::new(Thinking::maybe(), None), &["<think>", "\n"], FinishReason::Length);
        let tokens = |event: &ChatEvent| match event {
            ChatEvent::Chunk(chunk) => chunk.tokens.len(),
            ChatEvent::Finished { .. } => 0,
        };
        assert_eq!(events.iter().map(tokens).collect::<Vec<_>>(), [0, 0, 2, 0]);
    }
}
