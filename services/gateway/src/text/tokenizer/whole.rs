//! Tokens that are found in a text whole, before anything else: those that steer, and those that somebody added.

use aho_corasick::{AhoCorasick, MatchKind};
use gguf::TokenKind;
use swarm_types::TokenId;

use crate::text::TextError;

/// A part of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part<'a> {
    /// A token.
    Whole(TokenId),
    /// Not empty, and without such tokens.
    Text(&'a str),
}

/// The tokens that are found whole.
pub(super) struct WholeTokens {
    finder: AhoCorasick,
    /// Of each pattern.
    ids: Vec<TokenId>,
    /// Blanks behind one of them belong to it.
    take_blanks: bool,
    /// Finds those that steer, also within each other.
    controls: AhoCorasick,
    /// Where the first character of each of them ends.
    first: Vec<usize>,
}

impl WholeTokens {
    pub(super) fn new(tokens: &[String], kinds: &[TokenKind], take_blanks: bool) -> Result<Self, TextError> {
        let failed = |error: aho_corasick::BuildError| TextError::Damaged(error.to_string());
        let whole = |kind: &TokenKind| matches!(kind, TokenKind::Control | TokenKind::UserDefined);
        let all = tokens.iter().zip(kinds).zip(0..).filter(|((token, _), _)| !token.is_empty());
        let found: Vec<_> = all.filter(|((_, kind), _)| whole(kind)).collect();
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(found.iter().map(|((token, _), _)| token))
            .map_err(failed)?;
        let steers = found.iter().filter(|((_, kind), _)| **kind == TokenKind::Control);
        let steers: Vec<&String> = steers.map(|((token, _), _)| *token).collect();
        Ok(Self {
            finder,
            ids: found.iter().map(|(_, id)| TokenId(*id)).collect(),
            take_blanks,
            first: steers.iter().map(|token| token.chars().next().map_or(0, char::len_utf8)).collect(),
            controls: AhoCorasick::new(steers).map_err(failed)?,
        })
    }

    /// The text in parts. Of tokens that overlap the first counts, and of those that begin at one place the longest.
    pub(super) fn parts<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Part<'a>> {
        let mut from = 0;
        let mut behind_token = false;
        let mut found = self.finder.find_iter(text);
        let mut next = found.next();
        let mut over = false;
        std::iter::from_fn(move || {
            loop {
                if over {
                    return None;
                }
                let end = next.map_or(text.len(), |token| token.start());
                if from < end {
                    let mut part = &text[from..end];
                    from = end;
                    if std::mem::take(&mut behind_token) && self.take_blanks {
                        part = part.trim_start();
                    }
                    if !part.is_empty() {
                        return Some(Part::Text(part));
                    }
                }
                let Some(token) = next else {
                    over = true;
                    continue;
                };
                (from, behind_token) = (token.end(), true);
                next = found.next();
                return Some(Part::Whole(self.ids[token.pattern().as_usize()]));
            }
        })
    }

    /// Where in a text this mark would have to stand, so that it has no token that steers: behind the first character
    /// of each.
    pub(super) fn breaks(&self, text: &str) -> Vec<usize> {
        let found = self.controls.find_overlapping_iter(text);
        let mut breaks: Vec<usize> =
            found.map(|token| token.start() + self.first[token.pattern().as_usize()]).collect();
        breaks.sort_unstable();
        breaks.dedup();
        breaks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(take_blanks: bool) -> WholeTokens {
        let tokens = ["<a>", "<a><b>", "<b>", "x", "<c>"].map(String::from);
        let kinds = [
            TokenKind::Control,
            TokenKind::UserDefined,
            TokenKind::Control,
            TokenKind::Normal,
            TokenKind::UserDefined,
        ];
        WholeTokens::new(&tokens, &kinds, take_blanks).expect("valid")
    }

    #[test]
    fn the_first_and_longest_token_counts() {
        let tokens = tokens(false);
        let parts = |text| tokens.parts(text).collect::<Vec<_>>();
        let whole = |id| Part::Whole(TokenId(id));
        assert_eq!(parts("x<a><b> y<b>"), [Part::Text("x"), whole(1), Part::Text(" y"), whole(2)]);
        assert_eq!(parts("<a><a"), [whole(0), Part::Text("<a")]);
        assert_eq!(parts(""), []);
    }

    #[test]
    fn blanks_behind_a_token_are_its_own_where_the_model_wants_that() {
        let tokens = tokens(true);
        let parts: Vec<_> = tokens.parts(" <a>\n <b> \nx ").collect();
        let whole = |id| Part::Whole(TokenId(id));
        assert_eq!(parts, [Part::Text(" "), whole(0), whole(2), Part::Text("x ")]);
    }

    #[test]
    fn only_tokens_that_steer_are_broken() {
        let tokens = tokens(false);
        assert_eq!(tokens.breaks("<a><b> <c>"), [1, 4]);
        assert!(tokens.breaks("<a <c>").is_empty());
    }
}
