//! Goes on with conversations.

use futures::StreamExt;
use swarm_types::TokenId;

use super::{
    api::{ChatEvents, ChatRequest, ChatStream},
    format::ToolFormat,
    plan::{self, Plan, Prompt},
    reader::Reader,
    thinking::Thinking,
};
use crate::{
    completion::{Completer, CompletionRequest, CompletionStream, StartError, choices},
    generation::{GenerationError, Operation},
    text::ServedModel,
};

/// Goes on with conversations, by the model that the swarm serves. Cheap to clone.
#[derive(Clone)]
pub struct Chatter {
    completer: Completer,
    tool_format: Option<ToolFormat>,
}

impl Chatter {
    /// Calls are read in the form that the model's template shows.
    #[must_use]
    pub fn new(completer: Completer) -> Self {
        Self { completer, tool_format: None }
    }

    /// The same; calls are read in this form, if one is given.
    #[must_use]
    pub fn with_tool_format(self, tool_format: Option<ToolFormat>) -> Self {
        Self { tool_format, ..self }
    }

    /// What it goes on by.
    #[must_use]
    pub fn completer(&self) -> &Completer {
        &self.completer
    }

    /// Starts all choices. Resolves when every hop has accepted the first.
    ///
    /// # Errors
    /// When the client may not, or what is refused, by field.
    pub async fn start(&self, request: ChatRequest) -> Result<ChatStream, StartError> {
        let Prepared { request, plan, thinking, prompt } = self.prepare(request).await?;
        let reader = Reader::new(thinking, plan.calls);
        let completion = |index| {
            let mut sampling = request.sampling.clone();
            sampling.seed = sampling.seed.wrapping_add(u64::from(index));
            CompletionRequest {
                principal: request.principal.clone(),
                operation: Operation::Chat,
                prompt: prompt.clone(),
                sampling,
                grammar: plan.grammar.clone(),
                max_tokens: request.max_tokens,
                stop: request.stop.clone(),
                stop_tokens: request.stop_tokens.clone(),
                ignore_eos: request.ignore_eos,
                score_prompt: None,
                named_tokens: plan.named_tokens.clone(),
            }
        };
        let requests = (0..request.choices).map(completion).collect();
        let tell = move |index, completion| events(index, completion, reader.clone());
        let events = choices::start_each(&self.completer, requests, tell).await?;
        Ok(ChatStream { prompt_tokens: prompt.len() as u64, events })
    }

    /// The tokens of the prompt that the request would have.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn prompt(&self, request: ChatRequest) -> Result<Vec<TokenId>, StartError> {
        Ok(self.prepare(request).await?.prompt)
    }

    async fn prepare(&self, request: ChatRequest) -> Result<Prepared, StartError> {
        request.principal.may_use(self.completer.model().names())?;
        self.completer.check_length("messages", plan::length(&request.chat))?;
        let (request, plan) = self.plan(request).await?;
        if let Some(grammar) = &plan.grammar {
            self.completer.check_grammar(plan.grammar_field, grammar).await?;
        }
        let (plan, Prompt { rendered, thinking }) = self.render(plan).await?;
        let prompt = self.completer.encode_as(Operation::Chat, rendered).await?;
        Ok(Prepared { request, plan, thinking, prompt })
    }

    /// Many functions and long conversations take a while to be written.
    async fn plan(&self, mut request: ChatRequest) -> Result<(ChatRequest, Plan), GenerationError> {
        let format = self.tool_format;
        let plan = move |model: &ServedModel| {
            let plan = Plan::new(&mut request, model, format)?;
            Ok((request, plan))
        };
        self.completer.blocking(plan).await?
    }

    async fn render(&self, plan: Plan) -> Result<(Plan, Prompt), GenerationError> {
        self.completer.check_length("messages", plan.length())?;
        let render = move |model: &ServedModel| plan.prompt(model).map(|prompt| (plan, prompt));
        let rendered = self.completer.blocking(render).await?;
        rendered.map_err(|error| GenerationError::invalid("messages", error))
    }
}

/// A request that has its prompt. Its conversation and its grammar are in the plan.
struct Prepared {
    request: ChatRequest,
    plan: Plan,
    thinking: Thinking,
    prompt: Vec<TokenId>,
}

/// What a choice's reader makes of its events. Where the reader has come to the end before the model, the generation is
/// dropped, which ends it on every hop.
fn events(index: usize, mut completion: CompletionStream, mut reader: Reader) -> ChatEvents {
    let events = async_stream::stream! {
        while let Some(event) = completion.next().await {
            let told = match event {
                Ok(event) => reader.read(event),
                Err(error) => {
                    yield Err(error);
                    return;
                }
            };
            if reader.is_over() {
                drop(completion);
                for event in told {
                    yield Ok((index, event));
                }
                return;
            }
            for event in told {
                yield Ok((index, event));
            }
        }
    };
    events.boxed()
}
