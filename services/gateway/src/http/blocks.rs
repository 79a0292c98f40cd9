//! A message as a row of blocks, each of one kind and whole before the next begins: thinking, text, calls.

use crate::chat::Delta;

/// What a block is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Block {
    Text,
    Thinking,
    /// More of it is JSON.
    Call {
        id: String,
        name: String,
    },
}

/// What happens to the blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A block begins.
    Begin(Block),
    /// More of the block that is open.
    More(String),
    /// The block that is open is whole.
    End,
}

/// Makes blocks of the pieces of a message.
#[derive(Default, Debug)]
pub(super) struct Blocks {
    open: Option<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    Thinking,
    Call,
}

impl Blocks {
    /// What a piece does.
    pub(super) fn push(&mut self, delta: Delta) -> Vec<Step> {
        match delta {
            Delta::Nothing => vec![],
            Delta::Content(text) => self.more(Kind::Text, Block::Text, text),
            Delta::Reasoning(text) => self.more(Kind::Thinking, Block::Thinking, text),
            Delta::ToolCall { id, name, .. } => {
                let mut steps = self.finish();
                self.open = Some(Kind::Call);
                steps.push(Step::Begin(Block::Call { id, name }));
                steps
            }
            Delta::Arguments { text, .. } if self.open == Some(Kind::Call) && !text.is_empty() => {
                vec![Step::More(text)]
            }
            Delta::Arguments { .. } => vec![],
        }
    }

    /// At the end of the message.
    pub(super) fn finish(&mut self) -> Vec<Step> {
        self.open.take().map(|_| Step::End).into_iter().collect()
    }

    fn more(&mut self, kind: Kind, block: Block, text: String) -> Vec<Step> {
        if text.is_empty() {
            return vec![];
        }
        let mut steps = vec![];
        if self.open != Some(kind) {
            steps = self.finish();
            self.open = Some(kind);
            steps.push(Step::Begin(block));
        }
        steps.push(Step::More(text));
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_is_whole_before_the_next_begins() {
        let mut blocks = Blocks::default();
        let call = |index, id: &str| Delta::ToolCall { index, id: id.into(), name: "f".into() };
        let told: Vec<Step> = [
            Delta::Nothing,
            Delta::Reasoning("a".into()),
            Delta::Reasoning("b".into()),
            Delta::Content(String::new()),
            Delta::Content("c".into()),
            call(0, "x"),
            Delta::Arguments { index: 0, text: "{}".into() },
            call(1, "y"),
        ]
        .into_iter()
        .flat_map(|delta| blocks.push(delta))
        .collect();
        let call = |id: &str| Step::Begin(Block::Call { id: id.into(), name: "f".into() });
        let expected = [
            Step::Begin(Block::Thinking),
            Step::More("a".into()),
            Step::More("b".into()),
            Step::End,
            Step::Begin(Block::Text),
            Step::More("c".into()),
            Step::End,
            call("x"),
            Step::More("{}".into()),
            Step::End,
            call("y"),
        ];
        assert_eq!(told, expected);
        assert_eq!(blocks.finish(), [Step::End]);
        assert!(blocks.finish().is_empty());
    }
}
