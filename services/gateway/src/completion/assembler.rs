//! Makes text of tokens as they come: whole characters, no part of a stop string, and each token only when all of its
//! text is out.

use std::{borrow::Cow, collections::VecDeque, time::Duration};

use swarm_types::{HopTiming, TokenId};

use crate::{
    generation::GeneratedToken,
    text::{Detokenizer, StopMatcher, Tokenizer},
};

/// A token and where its text begins.
#[derive(Clone, PartialEq, Debug)]
pub struct PlacedToken {
    /// Which, and how it came about.
    pub token: GeneratedToken,
    /// Characters of the generated text before it.
    pub offset: usize,
}

/// How long a token's way through the route took.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenPath {
    /// Which.
    pub token: TokenId,
    /// From asking for the token to having it.
    pub round_trip: Duration,
    /// One entry for each hop of the route, in order.
    pub hops: Vec<HopTiming>,
}

/// Text and the tokens that are out with it. Either may be empty.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TextChunk {
    /// Whole characters, no part of a stop string.
    pub text: String,
    /// In order.
    pub tokens: Vec<PlacedToken>,
    /// Of the token just generated, also while its text is held back. None in what comes out at the end.
    pub path: Option<TokenPath>,
}

/// Text of one continuation in the making.
pub(super) struct Assembler {
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// Tokens that steer, and whose names are text here.
    named: Vec<TokenId>,
    /// Characters that the tokens so far make.
    made: usize,
    /// Characters that were shown.
    shown: usize,
    /// Tokens that were not shown yet, with the end of their text once its last character is complete.
    waiting: VecDeque<(PlacedToken, Option<usize>)>,
}

impl Assembler {
    pub(super) fn new(stops: &[String], named: Vec<TokenId>) -> Self {
        Self {
            detokenizer: Detokenizer::default(),
            stops: StopMatcher::new(stops),
            named,
            made: 0,
            shown: 0,
            waiting: VecDeque::new(),
        }
    }

    /// What the token brings out, and whether a stop string was found behind it: then nothing may be pushed any more.
    pub(super) fn push(&mut self, token: GeneratedToken, tokenizer: &Tokenizer) -> (TextChunk, bool) {
        let path = TokenPath { token: token.token, round_trip: token.round_trip, hops: token.hops.clone() };
        let bytes = match self.named.contains(&token.token) {
            true => Cow::from(tokenizer.name(token.token).into_bytes()),
            false => Cow::from(tokenizer.bytes(token.token)),
        };
        let text = self.detokenizer.push(&bytes);
        let offset = self.made;
        self.made += text.chars().count();
        if !text.is_empty() {
            self.complete_waiting();
        }
        let end = (!self.detokenizer.holds_back()).then_some(self.made);
        self.waiting.push_back((PlacedToken { token, offset }, end));
        let (text, stopped) = self.stops.push(&text);
        (TextChunk { path: Some(path), ..self.show(text) }, stopped)
    }

    /// What was held back, at the end. A character whose end did not come is no text; its tokens come out.
    pub(super) fn finish(&mut self) -> TextChunk {
        self.detokenizer.finish();
        self.complete_waiting();
        let text = self.stops.finish();
        self.show(text)
    }

    /// The stop string that was found.
    pub(super) fn stopped_at(&self) -> Option<String> {
        self.stops.found().map(str::to_owned)
    }

    /// The characters that these tokens began are complete.
    fn complete_waiting(&mut self) {
        for (_, end) in &mut self.waiting {
            end.get_or_insert(self.made);
        }
    }

    fn show(&mut self, text: String) -> TextChunk {
        self.shown += text.chars().count();
        let out = |(_, end): &(PlacedToken, Option<usize>)| end.is_some_and(|end| end <= self.shown);
        let count = self.waiting.iter().take_while(|waiting| out(waiting)).count();
        let tokens = self.waiting.drain(..count).map(|(token, _)| token).collect();
        TextChunk { text, tokens, path: None }
    }
}
