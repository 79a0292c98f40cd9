//! `InferenceService`: text in, text out, over gRPC.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use futures::{Stream, StreamExt};
use swarm_process::trace;
use swarm_proto::{
    Refusal, RefusalCause,
    wire::{
        self, generate_request::Input, generate_response::Event,
        inference_service_server::InferenceService as Service,
        inference_service_server::InferenceServiceServer,
    },
};
use swarm_types::{Grammar, SamplingParams, TokenId};
use tonic::{Code, Request, Response, Status};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    clients::{Principal, whole_seconds},
    completion::{Completer, CompletionEvent, CompletionRequest, PlacedToken},
    generation::{FinishReason, GenerationError, Generator, Operation},
    record::{self, LogRequests, Record},
    text::{Chat, Message},
};

/// The service's name, for health and reflection.
pub const NAME: &str = "swarm.v1.InferenceService";
/// Holds the longest prompt that any context takes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Answers from the swarm, once there is a model to answer with; refuses all calls before. Cheap to clone.
#[derive(Clone, Default)]
pub struct InferenceService {
    served: Arc<OnceLock<Served>>,
    log: LogRequests,
}

/// What it answers with.
struct Served {
    completer: Completer,
    generator: Generator,
    /// Whatever model is asked for, the served one answers.
    any_model: bool,
}

impl InferenceService {
    /// A service with nothing to answer with yet, whose calls have a line in the log each, or none.
    #[must_use]
    pub fn logging(log: LogRequests) -> Self {
        Self { served: Arc::default(), log }
    }

    /// From now on it answers by these. It is said once.
    pub fn answer_by(&self, completer: Completer, generator: Generator, any_model: bool) {
        let _ = self.served.set(Served { completer, generator, any_model });
    }

    /// The service, ready to be added to a server.
    #[must_use]
    pub fn server(self) -> InferenceServiceServer<Self> {
        InferenceServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn served(&self) -> Result<&Served, Status> {
        self.served.get().ok_or_else(|| status(GenerationError::no_model()))
    }
}

impl Served {
    async fn request(
        &self,
        wire: wire::GenerateRequest,
        principal: Principal,
    ) -> Result<CompletionRequest, Status> {
        let model = self.completer.model();
        if !(wire.model.is_empty() || self.any_model || model.is_called(&wire.model)) {
            let what = format!("{:?} is not served here, see ListModels", wire.model);
            return Err(Refusal::of_field(RefusalCause::UnknownModel, "model", what).into());
        }
        principal.may_use(model.names())?;
        let sampling = SamplingParams::try_from(wire.sampling.unwrap_or_default()).map_err(Refusal::from)?;
        // In the call it cannot be left out; 0 is what it is where nobody has named one.
        if sampling.seed != 0 {
            record::seeded();
        }
        let operation = match wire.input {
            Some(Input::Chat(_)) => Operation::Chat,
            _ => Operation::TextCompletion,
        };
        let encoded = match wire.input {
            Some(Input::Prompt(text)) => self.completer.encode(text).await,
            Some(Input::Chat(chat)) => {
                let chat = Chat { messages: messages(chat)?, ..Chat::default() };
                self.completer.encode_chat(chat).await
            }
            Some(Input::PromptTokens(tokens)) => Ok(tokens.ids.into_iter().map(TokenId).collect()),
            None => return Err(Refusal::invalid("input", "give prompt, chat or prompt_tokens").into()),
        };
        Ok(CompletionRequest {
            principal,
            operation,
            prompt: encoded.map_err(status)?,
            sampling,
            grammar: wire.grammar.map(Grammar::try_from).transpose().map_err(Refusal::from)?,
            max_tokens: wire.max_tokens,
            stop: wire.stop,
            stop_tokens: vec![],
            ignore_eos: wire.ignore_eos,
            score_prompt: None,
            named_tokens: vec![],
        })
    }
}

fn messages(chat: wire::Chat) -> Result<Vec<Message>, Status> {
    if chat.messages.is_empty() {
        return Err(Refusal::invalid("chat.messages", "must have at least one message").into());
    }
    let mut messages = Vec::with_capacity(chat.messages.len());
    for wire::ChatMessage { role, content } in chat.messages {
        if !matches!(role.as_str(), "system" | "user" | "assistant") {
            let what = format!("must be system, user or assistant, got {role:?}");
            return Err(Refusal::invalid("chat.messages.role", what).into());
        }
        messages.push(Message { role, content, ..Message::default() });
    }
    Ok(messages)
}

/// The one mapping of failed generations to gRPC.
fn status(error: GenerationError) -> Status {
    let cause = match &error {
        GenerationError::NotReady { .. } => RefusalCause::NotReady,
        GenerationError::Full { .. } => RefusalCause::Full,
        GenerationError::ContextLength { .. } => RefusalCause::ContextLength,
        GenerationError::Invalid { .. } => RefusalCause::InvalidArgument,
        GenerationError::HopFailed { .. } => RefusalCause::HopFailed,
        GenerationError::Timeout { .. } => RefusalCause::Timeout,
        GenerationError::Internal { .. } => RefusalCause::Internal,
    };
    let message = error.to_string();
    match error {
        GenerationError::Invalid { field, .. } => Refusal { cause, field: Some(field), message }.into(),
        GenerationError::ContextLength { field, .. } => {
            let field = if field == "messages" { "chat.messages" } else { field };
            Refusal::of_field(cause, field, message).into()
        }
        GenerationError::NotReady { retry_after, .. } | GenerationError::Full { retry_after } => {
            Refusal::new(cause, message).retry_after(whole_seconds(retry_after))
        }
        _ => Refusal::new(cause, message).into(),
    }
}

fn chunk_token(placed: PlacedToken) -> wire::ChunkToken {
    let token = placed.token;
    wire::ChunkToken {
        id: token.token.0,
        logprob: token.logprob,
        top: token.top.into_iter().map(Into::into).collect(),
        hops: token.hops.into_iter().map(Into::into).collect(),
        round_trip_us: u32::try_from(token.round_trip.as_micros()).unwrap_or(u32::MAX),
    }
}

/// Who asks, as the gate of the port has found out.
fn principal<T>(request: &Request<T>) -> Result<Principal, Status> {
    let known = request.extensions().get::<Principal>().cloned();
    known.ok_or_else(|| Refusal::new(RefusalCause::Internal, "nobody was let in, and somebody asks").into())
}

/// Prompt scores are not part of this service and are never asked for.
fn response(event: CompletionEvent, prompt_tokens: u32) -> Option<wire::GenerateResponse> {
    let event = match event {
        CompletionEvent::PromptScores(_) => return None,
        CompletionEvent::Chunk(chunk) if chunk.text.is_empty() && chunk.tokens.is_empty() => return None,
        CompletionEvent::Chunk(chunk) => Event::Chunk(wire::Chunk {
            text: chunk.text,
            tokens: chunk.tokens.into_iter().map(chunk_token).collect(),
        }),
        CompletionEvent::Finished { reason, completion_tokens, .. } => Event::Finished(wire::Finished {
            finish_reason: FinishReason::as_str(reason).into(),
            prompt_tokens,
            completion_tokens,
        }),
    };
    Some(wire::GenerateResponse { event: Some(event) })
}

/// By OpenTelemetry's conventions for gRPC servers.
fn call_span<T>(request: &Request<T>) -> Span {
    let server = request.local_addr();
    info_span!(
        "Generate",
        otel.name = "swarm.v1.InferenceService/Generate",
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        rpc.system = "grpc",
        rpc.service = NAME,
        rpc.method = "Generate",
        rpc.grpc.status_code = Empty,
        server.address = server.map(|server| tracing::field::display(server.ip())),
        server.port = server.map(|server| i64::from(server.port())),
    )
}

/// The call's record, by the id that its client gave it.
fn call_record<T>(request: &Request<T>, span: &Span, log: LogRequests) -> Record {
    let given = request.metadata().get(record::REQUEST_ID).and_then(|id| id.to_str().ok());
    Record::new(&record::request_id(given), "swarm.v1.InferenceService/Generate", span, log)
}

/// Tells how a call ended: well, or with a status.
fn ended(span: &Span, record: &Record, end: Result<(), &Status>) {
    let code = end.map_or_else(Status::code, |()| Code::Ok);
    let cause = end.err().map(|status| Refusal::from(status.clone()).cause.as_str());
    record.code(code as i32, cause);
    span.record("rpc.grpc.status_code", code as i64);
    let ours = [Code::Unknown, Code::DeadlineExceeded, Code::Internal, Code::Unavailable, Code::DataLoss];
    if ours.contains(&code) {
        span.record("otel.status_code", "ERROR").record("error.type", (code as i32).to_string());
    }
}

#[tonic::async_trait]
impl Service for InferenceService {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<wire::GenerateResponse, Status>> + Send>>;

    async fn generate(
        &self,
        request: Request<wire::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let span = call_span(&request);
        trace::follow(request.metadata(), &span);
        let record = call_record(&request, &span, self.log);
        let started = async {
            let principal = principal(&request)?;
            record::asks(&principal);
            let in_hand = principal.begin()?;
            let served = self.served()?;
            let request = served.request(request.into_inner(), principal.clone()).await?;
            served.completer.check(&request).map_err(status)?;
            let tokens = request.prompt.len() as u64;
            principal.draw(tokens)?;
            let events = served.completer.start(request).await;
            let events = events.inspect_err(|_| principal.give_back(tokens)).map_err(status)?;
            Ok::<_, Status>((u32::try_from(tokens).unwrap_or(u32::MAX), events, in_hand))
        };
        let started = record.follow(started.instrument(span.clone())).await;
        let (prompt_tokens, mut events, in_hand) = started.inspect_err(|status| {
            ended(&span, &record, Err(status));
            record.log();
        })?;
        let of_the_stream = record.clone();
        // The call's span lasts as long as its answer.
        let responses = async_stream::stream! {
            let _in_hand = in_hand;
            while let Some(event) = events.next().await {
                let event = match event.map_err(status) {
                    Ok(event) => event,
                    Err(status) => {
                        ended(&span, &record, Err(&status));
                        yield Err(status);
                        return;
                    }
                };
                if let Some(response) = response(event, prompt_tokens) {
                    yield Ok(response);
                }
            }
            ended(&span, &record, Ok(()));
        };
        Ok(Response::new(of_the_stream.follow(responses).with_its_end().boxed()))
    }

    async fn list_models(
        &self,
        request: Request<wire::ListModelsRequest>,
    ) -> Result<Response<wire::ListModelsResponse>, Status> {
        let served = self.served()?;
        let model = served.completer.model();
        if principal(&request)?.may_use(model.names()).is_err() {
            return Ok(Response::new(wire::ListModelsResponse::default()));
        }
        let model = wire::Model {
            id: model.id().into(),
            digest: model.digest().to_string(),
            context_length: model.context_length(),
            ready: served.generator.readiness().is_ok(),
        };
        Ok(Response::new(wire::ListModelsResponse { models: vec![model] }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_may_come_again_is_told_when_in_whole_seconds() {
        let retry_after = Duration::from_millis(2100);
        let not_ready = GenerationError::NotReady { reason: "shard 3 has nobody".into(), retry_after };
        for (error, code) in
            [(not_ready, Code::Unavailable), (GenerationError::Full { retry_after }, Code::ResourceExhausted)]
        {
            let status = status(error);
            assert_eq!(status.code(), code);
            assert_eq!(status.metadata().get("retry-after").and_then(|told| told.to_str().ok()), Some("3"));
        }
    }
}
