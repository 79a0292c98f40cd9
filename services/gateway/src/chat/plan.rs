//! Decides how a chat is asked of the model, and how its answer is read.

use serde_json::Value;
use swarm_types::{Grammar, TokenId};

use super::{
    api::{ChatRequest, Tool, ToolChoice},
    calls::Calls,
    forced,
    format::ToolFormat,
    offered, prompt,
    thinking::{self, Thinking},
    tools,
};
use crate::{
    completion::GRAMMAR,
    generation::GenerationError,
    text::{Chat, ChatTemplate, Rendered, ServedModel, TemplateError},
};

/// The variable by which templates are told whether the model is to think.
const ENABLE_THINKING: &str = "enable_thinking";

/// How a chat is asked of the model, and how its answer is read.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The first that the template takes.
    chats: Vec<Chat>,
    /// What the text must be like.
    pub(super) grammar: Option<Grammar>,
    /// It has room for nothing else, so that the model cannot think.
    held: bool,
    /// The field that says so.
    pub(super) grammar_field: &'static str,
    thinking: Thinking,
    /// Where functions may be called.
    pub(super) calls: Option<Calls>,
    /// Tokens that steer, and that the reading of the answer needs to see.
    pub(super) named_tokens: Vec<TokenId>,
}

/// A prompt, and how the answer to it begins.
pub(super) struct Prompt {
    pub(super) rendered: Rendered,
    pub(super) thinking: Thinking,
}

impl Plan {
    pub(super) fn new(
        request: &mut ChatRequest,
        model: &ServedModel,
        format: Option<ToolFormat>,
    ) -> Result<Self, GenerationError> {
        let wrong_tool =
            |(place, what): (usize, String)| GenerationError::invalid(&format!("tools[{place}].name"), what);
        tools::check(&request.tools).map_err(wrong_tool)?;
        let shown = if request.tool_choice == ToolChoice::None { &[][..] } else { &request.tools[..] };
        let template = model.template(!shown.is_empty());
        let format = format.unwrap_or_else(|| template.map_or(ToolFormat::Json, ToolFormat::of));
        let forced = forced(request, format, model)?;
        // What must be like something else calls nothing.
        let may_call = !shown.is_empty() && request.grammar.is_none();
        let calls = may_call.then(|| {
            let names = shown.iter().map(|tool| tool.name.clone()).collect();
            Calls::new(format, names, !request.parallel_tool_calls)
        });
        let grammar_field = if request.grammar.is_some() { GRAMMAR } else { "tools" };
        let wanted = forced.or(request.grammar.take());
        let held = wanted.is_some();
        let mut chat = std::mem::take(&mut request.chat);
        let thinking = thinking(&mut chat, template, held);
        let tokenizer = model.tokenizer();
        let grammar = match wanted {
            None if shown.iter().any(|tool| tool.strict) => {
                let tools: Vec<&Tool> = shown.iter().collect();
                let thinks = template.is_some_and(ChatTemplate::thinks);
                let offered = offered::grammar(format, &tools, thinks, tokenizer);
                Some(offered.map_err(|error| GenerationError::invalid("tools", error))?)
            }
            wanted => wanted,
        };
        let marks = [
            calls.as_ref().map(|_| format.unseen(tokenizer)),
            template.filter(|template| template.thinks()).map(|_| Thinking::unseen(tokenizer)),
        ];
        Ok(Self {
            chats: prompt::conversations(chat, shown, template),
            grammar,
            held,
            grammar_field,
            thinking,
            calls,
            named_tokens: match request.shows_control {
                true => tokenizer.controls(),
                false => marks.into_iter().flatten().flatten().collect(),
            },
        })
    }

    /// Bytes that the prompt has at least, with all that is told of the functions.
    pub(super) fn length(&self) -> usize {
        self.chats.first().map_or(0, length)
    }

    /// The prompt. Some templates take a while.
    ///
    /// # Errors
    /// When the template refuses the conversation.
    pub(super) fn prompt(&self, model: &ServedModel) -> Result<Prompt, TemplateError> {
        let rendered = self.render(model)?;
        // Some templates have every message begin with thinking.
        Ok(match rendered.text.trim_end() {
            begun if !begun.ends_with(thinking::OPEN) => Prompt { thinking: self.thinking.clone(), rendered },
            _ if !self.held => Prompt { thinking: Thinking::begun(), rendered },
            begun => {
                let text = format!("{begun}\n\n{}\n\n", thinking::CLOSE);
                let rendered = Rendered { text, mark: rendered.mark };
                Prompt { rendered, thinking: self.thinking.clone() }
            }
        })
    }

    fn render(&self, model: &ServedModel) -> Result<Rendered, TemplateError> {
        let mut refused = None;
        for chat in &self.chats {
            match model.render(chat) {
                Ok(text) => return Ok(text),
                Err(error) => _ = refused.get_or_insert(error),
            }
        }
        Err(refused.unwrap_or(TemplateError::Missing))
    }
}

/// Bytes that a conversation's prompt has at least: what is longer than all that fits need not be rendered.
pub(super) fn length(chat: &Chat) -> usize {
    chat.messages.iter().map(|message| message.content.len()).sum()
}

/// The grammar of a text that has to call functions, if it has to.
fn forced(
    request: &ChatRequest,
    format: ToolFormat,
    model: &ServedModel,
) -> Result<Option<Grammar>, GenerationError> {
    let wrong = |what: String| Err(GenerationError::invalid("tool_choice", what));
    let tools: Vec<&Tool> = match &request.tool_choice {
        ToolChoice::None | ToolChoice::Auto => return Ok(None),
        ToolChoice::Required => request.tools.iter().collect(),
        ToolChoice::Function(name) => request.tools.iter().filter(|tool| tool.name == *name).collect(),
    };
    match &request.tool_choice {
        ToolChoice::Function(name) if tools.is_empty() => {
            return wrong(format!("{name:?} is not among tools"));
        }
        _ if tools.is_empty() => return wrong("there are no tools that could be called".into()),
        _ => {}
    }
    if request.grammar.is_some() {
        let what =
            "not together with a tool_choice that wants a call: the text is either a call or of this form";
        return Err(GenerationError::invalid(GRAMMAR, what));
    }
    // Who wants a certain function wants it once.
    let several = request.parallel_tool_calls && request.tool_choice == ToolChoice::Required;
    let grammar = forced::grammar(format, &tools, several, model.tokenizer());
    grammar.map(Some).map_err(|error| GenerationError::invalid("tools", error))
}

/// How thinking is read, and what the template is told of it. A text that must be of a certain form has no room for it.
fn thinking(chat: &mut Chat, template: Option<&ChatTemplate>, held: bool) -> Thinking {
    let Some(template) = template.filter(|template| template.thinks()) else { return Thinking::never() };
    if held {
        if template.can_think_or_not() {
            chat.variables.insert(ENABLE_THINKING.into(), false.into());
        }
        return Thinking::never();
    }
    match chat.variables.get(ENABLE_THINKING) {
        Some(Value::Bool(false)) => Thinking::off(),
        _ => Thinking::maybe(),
    }
}
