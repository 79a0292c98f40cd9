//! Tells what a model thinks from what it says: it thinks between `<think>` and `</think>`, at the beginning.

use swarm_types::TokenId;

use crate::text::Tokenizer;

pub(super) const OPEN: &str = "<think>";
pub(super) const CLOSE: &str = "</think>";

/// A piece of a model's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Thought(String),
    Said(String),
}

/// Where in the text it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Before anything: it may begin to think.
    Start,
    /// There too, but it was told not to think, so no more than empty marks are expected.
    StartWithout,
    /// Behind the opening mark, where nothing but the closing one is expected.
    Empty,
    Thinks,
    /// Behind the thinking, before the first word.
    Behind,
    Speaks,
}

/// Tells thinking from speaking. What comes out does not depend on how the text was cut.
#[derive(Clone, Debug)]
pub(super) struct Thinking {
    place: Place,
    /// Blanks, and what may be the beginning of a mark.
    held: String,
    /// Bytes at the end of what is held that may be the beginning of a mark.
    mark: usize,
    has_thought: bool,
    out: Vec<Part>,
}

impl Thinking {
    fn at(place: Place) -> Self {
        Self { place, held: String::new(), mark: 0, has_thought: false, out: vec![] }
    }

    /// All is said.
    pub(super) fn never() -> Self {
        Self::at(Place::Speaks)
    }

    /// It was told not to think.
    pub(super) fn off() -> Self {
        Self::at(Place::StartWithout)
    }

    /// It thinks first, if it says so.
    pub(super) fn maybe() -> Self {
        Self::at(Place::Start)
    }

    /// The prompt's end has it thinking already.
    pub(super) fn begun() -> Self {
        Self::at(Place::Thinks)
    }

    /// Marks that are tokens which steer: they would not be seen in the text.
    pub(super) fn unseen(tokenizer: &Tokenizer) -> Vec<TokenId> {
        [OPEN, CLOSE].into_iter().filter_map(|mark| tokenizer.control(mark)).collect()
    }

    pub(super) fn thinks(&self) -> bool {
        self.place == Place::Thinks
    }

    /// What can be told now.
    pub(super) fn push(&mut self, text: &str) -> Vec<Part> {
        if self.place == Place::Speaks {
            self.say(text);
        } else {
            text.chars().for_each(|c| self.take(c));
        }
        std::mem::take(&mut self.out)
    }

    /// What was held back, at the end.
    pub(super) fn finish(&mut self) -> Vec<Part> {
        let held = std::mem::take(&mut self.held);
        match self.place {
            Place::Thinks => self.think(held.trim_end()),
            _ => self.say(&held),
        }
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, c: char) {
        match self.place {
            Place::Speaks => self.say(c.encode_utf8(&mut [0; 4])),
            Place::Behind if c.is_whitespace() => {}
            Place::Behind => {
                self.place = Place::Speaks;
                self.say(c.encode_utf8(&mut [0; 4]));
            }
            Place::Start | Place::StartWithout | Place::Empty => self.start(c),
            Place::Thinks => self.go_on_thinking(c),
        }
    }

    /// Blanks and a mark, or else something is said.
    fn start(&mut self, c: char) {
        let expected = if self.place == Place::Empty { CLOSE } else { OPEN };
        self.held.push(c);
        if self.mark == 0 && c.is_whitespace() {
            return;
        }
        if !expected[self.mark..].starts_with(c) {
            (self.place, self.mark) = (Place::Speaks, 0);
            let held = std::mem::take(&mut self.held);
            return self.say(&held);
        }
        self.mark += c.len_utf8();
        if self.mark < expected.len() {
            return;
        }
        self.mark = 0;
        self.place = match self.place {
            Place::StartWithout => Place::Empty,
            Place::Empty => Place::Behind,
            _ => Place::Thinks,
        };
        if self.place != Place::Empty {
            self.held.clear();
        }
    }

    fn go_on_thinking(&mut self, c: char) {
        let goes_on = CLOSE[self.mark..].starts_with(c);
        let more_blank = self.mark == 0 && c.is_whitespace();
        if !goes_on && !more_blank {
            let mut held = std::mem::take(&mut self.held);
            self.mark = 0;
            // Another mark may begin, or blanks that may be the last.
            if c != '<' && !c.is_whitespace() {
                held.push(c);
                return self.think(&held);
            }
            self.think(&held);
        }
        self.held.push(c);
        if c.is_whitespace() {
            return;
        }
        self.mark += c.len_utf8();
        if self.mark == CLOSE.len() {
            (self.place, self.mark) = (Place::Behind, 0);
            self.held.clear();
        }
    }

    /// Blanks before the first thought and behind the last belong to the marks.
    fn think(&mut self, text: &str) {
        let text = if self.has_thought { text } else { text.trim_start() };
        if text.is_empty() {
            return;
        }
        self.has_thought = true;
        match self.out.last_mut() {
            Some(Part::Thought(thought)) => thought.push_str(text),
            _ => self.out.push(Part::Thought(text.into())),
        }
    }

    fn say(&mut self, text: &str) {
        match self.out.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Said(said)) => said.push_str(text),
            _ => self.out.push(Part::Said(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was thought, and what was said.
    fn read(mut thinking: Thinking, parts: &[&str]) -> (String, String) {
        let mut told: Vec<Part> = parts.iter().flat_map(|part| thinking.push(part)).collect();
        told.extend(thinking.finish());
        let (mut thought, mut said) = (String::new(), String::new());
        for part in told {
            match part {
                Part::Thought(text) => thought += &text,
                Part::Said(text) => said += &text,
            }
        }
        (thought, said)
    }

    fn pair(thought: &str, said: &str) -> (String, String) {
        (thought.into(), said.into())
    }

    #[test]
    fn what_stands_between_the_marks_is_thought_and_the_rest_is_said() {
        let maybe = |text: &str| read(Thinking::maybe(), &[text]);
        assert_eq!(maybe("<think>\na < b\n\n</think>\n\nHi </think>"), pair("a < b", "Hi </think>"));
        assert_eq!(maybe("\n <think></think>Hi"), pair("", "Hi"));
        assert_eq!(maybe(" Hi <think>x</think>"), pair("", " Hi <think>x</think>"));
        assert_eq!(maybe("<thin"), pair("", "<thin"));
        assert_eq!(maybe("<think>never ends </thi"), pair("never ends </thi", ""));
        assert_eq!(read(Thinking::begun(), &["so", " </", "think", "> yes"]), pair("so", "yes"));
        assert_eq!(read(Thinking::never(), &["<think>x</think>"]), pair("", "<think>x</think>"));
    }

    #[test]
    fn where_it_is_off_only_empty_marks_are_taken_away() {
        let off = |text: &str| read(Thinking::off(), &[text]);
        assert_eq!(off("<think>\n\n</think>\n\nHi"), pair("", "Hi"));
        assert_eq!(off("<think>hm</think>Hi"), pair("", "<think>hm</think>Hi"));
        assert_eq!(off("Hi"), pair("", "Hi"));
    }

    /// With an effort that grows with the square this would take minutes.
    #[test]
    fn a_long_run_of_blanks_is_read_in_any_place() {
        let blanks = " \n".repeat(200_000);
        let text = format!("{blanks}<think>{blanks}a{blanks}b{blanks}</think>{blanks}Hi");
        let parts: Vec<&str> = text.split_inclusive('\n').collect();
        assert_eq!(read(Thinking::maybe(), &parts), pair(&format!("a{blanks}b"), "Hi"));
        let text = format!("{blanks}<think>{blanks}</think>{blanks}Hi");
        let parts: Vec<&str> = text.split_inclusive('\n').collect();
        assert_eq!(read(Thinking::off(), &parts), pair("", "Hi"));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_text_is_cut(
            parts in proptest::collection::vec("(<think>|</think>|<|/|think>|[a ]|\n){0,4}", 0..8),
            how in 0..4,
        ) {
            let new = || match how {
                0 => Thinking::maybe(),
                1 => Thinking::begun(),
                2 => Thinking::off(),
                _ => Thinking::never(),
            };
            let cut: Vec<&str> = parts.iter().map(String::as_str).collect();
            prop_assert_eq!(read(new(), &cut), read(new(), &[&parts.concat()]));
        }
    }
}
