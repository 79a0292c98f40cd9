//! The forms in which models write calls of functions.

use clap::ValueEnum;
use swarm_types::TokenId;

use crate::text::{ChatTemplate, Tokenizer};

/// A form in which models write calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, one or several: Qwen 2.5 and 3, Hermes.
    Hermes,
    /// `{"name": …, "parameters": {…}}` alone, perhaps behind `<|python_tag|>`: Llama 3.
    #[value(name = "llama3-json")]
    Llama3Json,
    /// `[f(a=1, b="x"), g()]`: Llama 4 and others.
    Pythonic,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]`: Mistral.
    Mistral,
    /// `{"name": …, "arguments": {…}}` or a list of these, alone or in `<tool_call>`: models that were not trained to
    /// any form.
    Json,
}

/// What stands around calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Marks {
    pub(super) open: &'static str,
    pub(super) close: Option<&'static str>,
    /// The message may also begin with the calls themselves.
    pub(super) bare: bool,
}

impl ToolFormat {
    /// What the template's makers taught the model, as far as the template shows it.
    #[must_use]
    pub fn of(template: &ChatTemplate) -> Self {
        let source = template.source();
        let shows = |mark: &str| source.contains(mark);
        if shows("[TOOL_CALLS]") {
            Self::Mistral
        } else if shows("(params_name1=") || shows("func_name1(") {
            Self::Pythonic
        } else if shows("<tool_call>") {
            Self::Hermes
        } else if template.knows_tools() && (shows("<|python_tag|>") || shows("<|start_header_id|>")) {
            Self::Llama3Json
        } else {
            Self::Json
        }
    }

    pub(super) fn marks(self) -> Marks {
        let (open, close, bare) = match self {
            Self::Hermes => ("<tool_call>", Some("</tool_call>"), false),
            Self::Json => ("<tool_call>", Some("</tool_call>"), true),
            Self::Llama3Json => ("<|python_tag|>", None, true),
            Self::Mistral => ("[TOOL_CALLS]", None, false),
            Self::Pythonic => ("<|python_start|>", Some("<|python_end|>"), true),
        };
        Marks { open, close, bare }
    }

    /// Marks that are tokens which steer: they would not be seen in the text.
    pub(super) fn unseen(self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let Marks { open, close, .. } = self.marks();
        [Some(open), close].into_iter().flatten().filter_map(|mark| tokenizer.control(mark)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_one_that_the_template_shows() {
        let format = |source: &str| ToolFormat::of(&ChatTemplate::new(source, "", "").expect("valid"));
        assert_eq!(format("{{ tools }}<tool_call>"), ToolFormat::Hermes);
        assert_eq!(format("{{ tools }}[TOOL_CALLS]"), ToolFormat::Mistral);
        assert_eq!(format("<|start_header_id|>{{ tools }}"), ToolFormat::Llama3Json);
        assert_eq!(
            format("<|start_header_id|>{{ tools }}[func_name1(params_name1=x)]"),
            ToolFormat::Pythonic
        );
        assert_eq!(format("<|start_header_id|>{{ messages }}"), ToolFormat::Json);
        assert_eq!(format("{{ messages }}"), ToolFormat::Json);
    }
}
