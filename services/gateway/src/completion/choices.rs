//! The choices of one request: several continuations, as one stream of events.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use swarm_types::TargetScore;

use super::{
    assembler::{PlacedToken, TextChunk},
    completer::{Completer, CompletionEvent, CompletionRequest, CompletionStream},
};
use crate::{
    clients::Denied,
    generation::{FinishReason, GenerationError},
};

/// Choices of one request that are generated at the same time; the others wait for them. One request must not fill
/// the whole swarm.
const AT_ONCE: usize = 16;

/// Why nothing of a request begins.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StartError {
    /// The client may not, or not now.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The swarm cannot, or not this.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

/// What happens in one choice.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ChoiceEvent {
    pub(crate) index: usize,
    pub(crate) event: CompletionEvent,
}

/// What is told, up to the first error. Dropping it cancels all.
pub(crate) type Telling<T> = Pin<Box<dyn Stream<Item = Result<T, GenerationError>> + Send>>;

/// The events of all choices, of each in order. Nothing comes after the first error. Dropping it cancels all.
pub(crate) type ChoiceStream = Telling<ChoiceEvent>;

/// Starts the choices, as [`start_each`] does.
pub(crate) async fn start(
    completer: &Completer,
    requests: Vec<CompletionRequest>,
) -> Result<ChoiceStream, StartError> {
    let numbered = |index, events: CompletionStream| {
        events.map(move |event| event.map(|event| ChoiceEvent { index, event })).boxed()
    };
    start_each(completer, requests, numbered).await
}

/// Starts the choices, and has each one's events told in a way of its own: by dropping them, the choice is cancelled
/// alone. The first is started before this returns, so that what refuses it is the answer's status. All prompts are
/// drawn from what the client may have in a minute, as often as they are computed.
pub(crate) async fn start_each<T: Send + 'static>(
    completer: &Completer,
    requests: Vec<CompletionRequest>,
    tell: impl Fn(usize, CompletionStream) -> Telling<T> + Send + 'static,
) -> Result<Telling<T>, StartError> {
    for request in &requests {
        completer.check(request)?;
    }
    let tokens = requests.iter().map(|request| request.prompt.len() as u64).sum();
    let mut requests = requests.into_iter().enumerate();
    let Some((_, first)) = requests.next() else { return Ok(stream::empty().boxed()) };
    let principal = first.principal.clone();
    principal.draw(tokens)?;
    let first = completer.start(first).await.inspect_err(|_| principal.give_back(tokens))?;
    let first = tell(0, first);
    let completer = completer.clone();
    let others = requests.map(move |(index, request)| {
        let completer = completer.clone();
        let started = async move {
            match completer.start(request).await {
                Ok(events) => events,
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        tell(index, stream::once(started).flatten().boxed())
    });
    let all = stream::iter([first].into_iter().chain(others)).flatten_unordered(AT_ONCE);
    let mut failed = false;
    let until_error = all.take_while(move |event| {
        let goes_on = !failed;
        failed |= event.is_err();
        std::future::ready(goes_on)
    });
    Ok(until_error.boxed())
}

/// A choice that came to its end.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Finished {
    pub(crate) text: String,
    pub(crate) tokens: Vec<PlacedToken>,
    pub(crate) prompt_scores: Vec<TargetScore>,
    pub(crate) reason: FinishReason,
    pub(crate) completion_tokens: u32,
}

/// All choices, when the last has come to its end.
pub(crate) async fn collect(
    mut events: ChoiceStream,
    count: usize,
) -> Result<Vec<Finished>, GenerationError> {
    let mut choices = vec![
        Finished {
            text: String::new(),
            tokens: vec![],
            prompt_scores: vec![],
            reason: FinishReason::Length,
            completion_tokens: 0
        };
        count
    ];
    while let Some(event) = events.next().await {
        let ChoiceEvent { index, event } = event?;
        let choice = &mut choices[index];
        match event {
            CompletionEvent::PromptScores(scores) => choice.prompt_scores.extend(scores),
            CompletionEvent::Chunk(TextChunk { text, tokens, path: _ }) => {
                choice.text += &text;
                choice.tokens.extend(tokens);
            }
            CompletionEvent::Finished { reason, completion_tokens, .. } => {
                choice.reason = reason;
                choice.completion_tokens = completion_tokens;
            }
        }
    }
    Ok(choices)
}
