//! The only way anyone opens a session on a hop: `Forward` down a route, `Collect` from its last hop.
//!
//! The caller brings the channel; whether it runs inside a libp2p stream is not known here.

use std::{fmt::Display, time::Duration};

use prost::Message;
use swarm_process::trace;
use swarm_proto::{
    CollectSession, FromBelow, FromHop, HopFailure, OpenSession, Opened, Refusal, RefusalCause, ToHop,
    wire::{self, shard_service_client::ShardServiceClient},
};
use swarm_types::{Attempt, NodeId, Step, StepInput, StepOutput};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, transport::Channel};

/// Largest message: almost 4096 rows of 1024 numbers, or 256 of 16384. Both ends use it.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Largest first message of `Forward`: it names as many hops as there can be.
pub const MAX_OPEN_BYTES: usize = 128 << 10;
/// Largest answer of `Forward`: somebody's failure, in words.
const MAX_NEWS_BYTES: usize = 64 << 10;
/// Largest answer of `Collect`: scores of 4096 rows, each with the 20 likeliest.
const MAX_ANSWER_BYTES: usize = 2 << 20;
/// Largest wish for a session's tokens: it tells about 700,000 of them.
pub const MAX_COLLECT_BYTES: usize = 2 << 20;
/// Steps that wait for the network; more make the sender wait.
const STEPS_WAITING: usize = 4;
/// A connected worker answers within milliseconds.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A hop that takes no step for so long is not alive.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Hops end within milliseconds. One that does not is left to its lease.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that takes answers of this size.
fn client(channel: Channel, answers: usize) -> ShardServiceClient<Channel> {
    ShardServiceClient::new(channel)
        .max_decoding_message_size(answers)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    trace::inject(request.metadata_mut());
    request
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Refusal> {
    match timeout(OPEN_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(refusal),
        Err(_) => Err(Refusal::new(RefusalCause::Timeout, "the hop did not answer in time")),
    }
}

/// What a hop says against the protocol is its own fault, not that of whoever asked it.
fn broken(error: impl Display) -> Refusal {
    Refusal::new(RefusalCause::HopFailed, format!("the hop does not keep to the protocol: {error}"))
}

fn refusal(status: Status) -> Refusal {
    match status.code() {
        // No refusal of ours has these codes: the answer was too large, or the hop has no such method.
        Code::OutOfRange | Code::Unimplemented => broken(status.message()),
        _ => status.into(),
    }
}

/// A session on a hop and all hops below it. When it is dropped without [`Self::end`] they keep its cache for a while,
/// for a newer attempt.
#[derive(Debug)]
pub struct HopSession {
    steps: mpsc::Sender<wire::ForwardRequest>,
}

/// What is told up the route: where the session stands, and that a hop cannot go on.
#[derive(Debug)]
pub struct HopTrouble {
    worker: NodeId,
    /// The hops below it.
    below: Vec<NodeId>,
    /// `opened` has come: it comes once.
    has_opened: bool,
    answers: Streaming<wire::ForwardResponse>,
}

impl HopSession {
    /// Opens the session on the hop that `open` is for. Whether the hop accepts it is told by [`HopTrouble`]: the steps
    /// of a session that is new may be sent at once.
    ///
    /// # Errors
    /// When the hop does not answer.
    pub async fn open(channel: Channel, open: OpenSession) -> Result<(Self, HopTrouble), Refusal> {
        let worker = open.hop.worker.clone();
        let below = open.below.iter().map(|hop| hop.worker.clone()).collect();
        let (steps, waiting) = mpsc::channel(STEPS_WAITING);
        let first = ToHop::Open(Box::new(open)).into();
        steps.try_send(first).map_err(|_| Refusal::new(RefusalCause::Internal, "a new channel is full"))?;
        let mut client = client(channel, MAX_NEWS_BYTES);
        let answers = in_time(client.forward(request(ReceiverStream::new(waiting)))).await?.into_inner();
        Ok((Self { steps }, HopTrouble { worker, below, has_opened: false, answers }))
    }

    /// Sends a step down; waits while the hop has enough of them.
    ///
    /// # Errors
    /// When the stream has ended, or the hop takes nothing for a minute. `InvalidArgument` when no hop would take the
    /// step because of its size; it is not sent then.
    pub async fn send(&self, step: Step) -> Result<(), Refusal> {
        check_size(&step)?;
        match timeout(SEND_TIMEOUT, self.steps.send(ToHop::Step(step).into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Refusal::new(RefusalCause::HopFailed, "the stream to the hop has ended")),
            Err(_) => Err(Refusal::new(RefusalCause::Timeout, "the hop takes no steps")),
        }
    }

    /// Ends the session on this hop and all below, and waits until they have freed its cache; a few seconds at most.
    pub async fn end(self, mut trouble: HopTrouble) {
        let ended = async {
            if self.steps.send(ToHop::End.into()).await.is_ok() {
                drop(self.steps);
                while let Ok(Some(_)) = trouble.answers.message().await {}
            }
        };
        if timeout(END_TIMEOUT, ended).await.is_err() {
            tracing::debug!(worker = %trouble.worker, "the hop did not end the session in time");
        }
    }
}

/// The sender says what to do about a step that is too large; the hop would only end the stream.
fn check_size(step: &Step) -> Result<(), Refusal> {
    let bytes = largest_size(step);
    if bytes <= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    let rows = step.rows();
    let message = format!(
        "a step of {rows} rows takes {bytes} bytes, a message at most {MAX_MESSAGE_BYTES}: use a smaller \
         --prefill-chunk"
    );
    Err(Refusal::invalid("rows", message))
}

fn check_tokens(wish: &wire::CollectRequest) -> Result<(), Refusal> {
    let bytes = wish.encoded_len();
    if bytes <= MAX_COLLECT_BYTES {
        return Ok(());
    }
    let message = format!(
        "{} tokens that penalties or scores look at take {bytes} bytes, a message at most {MAX_COLLECT_BYTES}",
        wish.tokens.len()
    );
    Err(Refusal::invalid("tokens", message))
}

/// No message with this step takes more bytes: a token is a number of up to five, a timing is three of them and their
/// tags.
fn largest_size(step: &Step) -> usize {
    let input = match &step.input {
        StepInput::Tokens(tokens) => 5 * tokens.len(),
        StepInput::Activations { values, .. } => size_of_val(values.as_slice()),
    };
    input + 20 * step.timings.len() + 96
}

impl HopTrouble {
    /// The next news from this hop and those below; after `Failed` there are none. Cancel-safe.
    pub async fn next(&mut self) -> FromBelow {
        let refusal = match self.answers.message().await {
            Ok(Some(response)) => match response.try_into() {
                Ok(FromBelow::Opened(_)) if self.has_opened => broken("opened: came twice"),
                Ok(FromBelow::Failed(HopFailure { worker, .. })) if !self.may_blame(&worker) => {
                    broken(format!("failed.worker: {worker} is not on the route below it"))
                }
                Ok(news) => {
                    self.has_opened = true;
                    return news;
                }
                Err(error) => broken(error),
            },
            Ok(None) => Refusal::new(RefusalCause::HopFailed, "the hop ended the session"),
            Err(status) => refusal(status),
        };
        FromBelow::Failed(HopFailure { worker: self.worker.clone(), refusal })
    }

    /// A hop speaks for itself and for those it was given as the hops below. Whom else it names it may not know, or
    /// wants out of the way.
    fn may_blame(&self, worker: &NodeId) -> bool {
        *worker == self.worker || self.below.contains(worker)
    }

    /// Resolves when this hop or one below it cannot go on. Cancel-safe.
    pub async fn failure(&mut self) -> HopFailure {
        loop {
            if let FromBelow::Failed(failure) = self.next().await {
                return failure;
            }
        }
    }

    /// Resolves when all hops have the session: from where on they need rows. Cancel-safe.
    ///
    /// # Errors
    /// When a hop cannot go on.
    pub async fn opened(&mut self) -> Result<Opened, HopFailure> {
        match self.next().await {
            FromBelow::Opened(opened) => Ok(opened),
            FromBelow::Failed(failure) => Err(failure),
        }
    }
}

/// The tokens of one session, from the last hop. Dropping it breaks the session there.
#[derive(Debug)]
pub struct Collected {
    /// What the last hop answered in an older attempt, in case it was lost on the way.
    pub last: Option<StepOutput>,
    attempt: Attempt,
    messages: Streaming<wire::CollectResponse>,
}

/// Asks the last hop for a session's tokens; returns when it has accepted.
///
/// # Errors
/// When it refuses or does not answer. `InvalidArgument` when no hop would take so many tokens.
pub async fn collect(channel: Channel, session: CollectSession) -> Result<Collected, Refusal> {
    let attempt = session.attempt;
    let wish = wire::CollectRequest::from(session);
    check_tokens(&wish)?;
    let mut client = client(channel, MAX_ANSWER_BYTES);
    let opened = async {
        let mut messages = client.collect(request(wish)).await?.into_inner();
        let first = messages.message().await?;
        Ok((messages, first))
    };
    let (messages, first) = in_time(opened).await?;
    match first.map(<(Attempt, FromHop)>::try_from).transpose().map_err(broken)? {
        Some((_, FromHop::Accepted(last))) => Ok(Collected { last, attempt, messages }),
        _ => Err(Refusal::new(RefusalCause::HopFailed, "the last hop did not accept the session")),
    }
}

impl Collected {
    /// The next answer to a step, `None` at the end of the session. What belongs to another attempt is dropped.
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the stream breaks or carries what it must not.
    pub async fn next(&mut self) -> Result<Option<StepOutput>, Refusal> {
        while let Some(message) = self.messages.message().await.map_err(refusal)? {
            match message.try_into().map_err(broken)? {
                (attempt, FromHop::Output(output)) if attempt == self.attempt => return Ok(Some(output)),
                (attempt, _) => tracing::debug!(%attempt, "dropped what does not belong to the attempt"),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use swarm_types::{HopTiming, StepKind};

    use super::*;

    fn step(rows: usize, hidden: usize) -> Step {
        Step {
            kind: StepKind::Decode,
            position: u32::MAX,
            input: StepInput::Activations { rows: rows as u32, values: vec![0.5; rows * hidden] },
            samples: u32::MAX,
            scores: u32::MAX,
            pools: true,
            rebuilds: false,
            timings: vec![
                HopTiming { queue: Duration::MAX, compute: Duration::MAX, batch_rows: u32::MAX };
                rows
            ],
        }
    }

    #[test]
    fn a_step_that_no_hop_would_take_is_refused_with_what_to_do() {
        assert!(check_size(&step(256, 16384)).is_err(), "just too large, with its timings");
        let fits = step(255, 16384);
        assert_eq!(check_size(&fits), Ok(()));
        let bound = largest_size(&fits);
        let size = wire::ForwardRequest::from(ToHop::Step(fits)).encoded_len();
        assert!(size <= bound && bound < size + 128, "{size} bytes are at most {bound}");
        let refusal = check_size(&step(512, 16384)).expect_err("refused");
        assert_eq!(refusal.cause, RefusalCause::InvalidArgument);
        assert!(refusal.message.contains("--prefill-chunk"), "{refusal}");
    }

    #[test]
    fn what_a_hop_says_wrong_is_not_the_callers_fault() {
        assert_eq!(refusal(Status::out_of_range("too large")).cause, RefusalCause::HopFailed);
        assert_eq!(refusal(Status::unimplemented("no such method")).cause, RefusalCause::HopFailed);
        let refused = Refusal::invalid("session_id", "is wrong");
        assert_eq!(refusal(refused.clone().into()), refused, "a refusal by cause stays what it is");
    }
}
