//! `shard.proto`: what goes up and down a route.

use bytes::{BufMut, Bytes, BytesMut};
use swarm_types::{
    Attempt, Hop, ModelDigest, NodeId, PROTOCOL_VERSION, Precision, SamplingParams, SessionId, ShardRange,
    Step, StepOutput, TargetScore, TokenId,
};

use crate::{
    Refusal, RefusalCause, WireError,
    model::{convert, logprob, try_convert},
    parse, wire,
};

/// A step with more rows is refused: prompts go down in chunks far smaller than this.
const MAX_STEP_ROWS: usize = 4096;
/// A route has at most as many hops as a model has shards.
const MAX_HOPS: usize = swarm_types::MAX_SHARDS as usize;

/// The first message of `Forward`.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenSession {
    /// Which generation.
    pub session: SessionId,
    /// Number of its current route.
    pub attempt: Attempt,
    /// The model it needs.
    pub model_digest: ModelDigest,
    /// In which precision.
    pub precision: Precision,
    /// How the model is cut.
    pub total_shards: u32,
    /// The receiver's own place in the route.
    pub hop: Hop,
    /// The hops below the receiver, next first.
    pub below: Vec<Hop>,
    /// Positions below this are prompt.
    pub prompt_tokens: u32,
    /// Upper bound of the session's positions.
    pub max_positions: u32,
    /// For the last hop.
    pub sampling: SamplingParams,
}

/// What flows down a route.
#[derive(Clone, PartialEq, Debug)]
pub enum ToHop {
    /// First message.
    Open(Box<OpenSession>),
    /// All others.
    Step(StepMessage),
}

/// A step and the route it belongs to.
#[derive(Clone, PartialEq, Debug)]
pub struct StepMessage {
    /// The session's attempt when it was sent.
    pub attempt: Attempt,
    /// The step.
    pub step: Step,
}

/// A hop that cannot go on, as it is told up the route.
#[derive(Clone, PartialEq, Debug)]
pub struct HopFailure {
    /// Which hop failed.
    pub worker: NodeId,
    /// Why.
    pub refusal: Refusal,
}

/// The gateway's wish for a session's tokens.
#[derive(Clone, PartialEq, Debug)]
pub struct CollectSession {
    /// Which generation.
    pub session: SessionId,
    /// Number of its current route.
    pub attempt: Attempt,
}

/// What the last hop sends to the gateway.
#[derive(Clone, PartialEq, Debug)]
pub enum FromHop {
    /// The last hop will pass on what it gets of this session.
    Accepted,
    /// A step has passed the last shard.
    Output(StepOutput),
}

impl TryFrom<wire::ForwardRequest> for ToHop {
    type Error = Refusal;

    fn try_from(request: wire::ForwardRequest) -> Result<Self, Refusal> {
        match request.message {
            Some(wire::forward_request::Message::Open(open)) => Ok(Self::Open(Box::new(open.try_into()?))),
            Some(wire::forward_request::Message::Step(step)) => Ok(Self::Step(step.try_into()?)),
            None => Err(WireError::new("message", "must be open or step").into()),
        }
    }
}

impl From<ToHop> for wire::ForwardRequest {
    fn from(message: ToHop) -> Self {
        Self {
            message: Some(match message {
                ToHop::Open(open) => wire::forward_request::Message::Open((*open).into()),
                ToHop::Step(step) => wire::forward_request::Message::Step(step.into()),
            }),
        }
    }
}

fn check_version(version: u32) -> Result<(), Refusal> {
    if version == PROTOCOL_VERSION {
        return Ok(());
    }
    let message = format!("protocol_version: this node speaks {PROTOCOL_VERSION}, the caller {version}");
    Err(Refusal::new(RefusalCause::ProtocolVersion, message))
}

impl TryFrom<wire::OpenSession> for OpenSession {
    type Error = Refusal;

    fn try_from(wire: wire::OpenSession) -> Result<Self, Refusal> {
        check_version(wire.protocol_version)?;
        if wire.hops.len() > MAX_HOPS {
            return Err(WireError::new("hops", format!("at most {MAX_HOPS}")).into());
        }
        let mut hops = wire.hops.into_iter().map(Hop::try_from);
        let hop = hops.next().ok_or_else(|| WireError::new("hops", "must name the receiver"))??;
        let below = hops.collect::<Result<Vec<_>, _>>()?;
        let all = std::iter::once(&hop).chain(&below);
        let gap = all.clone().zip(all.skip(1)).any(|(a, b)| a.shards.end() != b.shards.start());
        let end = below.last().unwrap_or(&hop).shards.end();
        if gap || end != wire.total_shards {
            return Err(WireError::new("hops", "must cover the shards to the last without gap").into());
        }
        if wire.max_positions == 0 || wire.prompt_tokens > wire.max_positions {
            return Err(WireError::new("max_positions", "must be at least prompt_tokens and 1").into());
        }
        let sampling = wire.sampling.ok_or_else(|| WireError::new("sampling", "is missing"))?;
        Ok(Self {
            session: parse("session_id", &wire.session_id)?,
            attempt: attempt(wire.attempt)?,
            model_digest: parse("model_digest", &wire.model_digest)?,
            precision: parse("precision", &wire.precision)?,
            total_shards: wire.total_shards,
            hop,
            below,
            prompt_tokens: wire.prompt_tokens,
            max_positions: wire.max_positions,
            sampling: sampling.try_into()?,
        })
    }
}

impl From<OpenSession> for wire::OpenSession {
    fn from(open: OpenSession) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            session_id: open.session.to_string(),
            attempt: open.attempt.0,
            model_digest: open.model_digest.to_string(),
            precision: open.precision.to_string(),
            total_shards: open.total_shards,
            hops: std::iter::once(open.hop).chain(open.below).map(Into::into).collect(),
            prompt_tokens: open.prompt_tokens,
            max_positions: open.max_positions,
            sampling: Some(open.sampling.into()),
        }
    }
}

fn attempt(number: u32) -> Result<Attempt, WireError> {
    if number == 0 { Err(WireError::new("attempt", "must be at least 1")) } else { Ok(Attempt(number)) }
}

impl TryFrom<wire::Hop> for Hop {
    type Error = WireError;

    fn try_from(wire: wire::Hop) -> Result<Self, WireError> {
        let shards = ShardRange::new(wire.first_shard, wire.end_shard);
        Ok(Self {
            worker: parse("hops.worker", &wire.worker)?,
            shards: shards.map_err(|error| WireError::new("hops", error))?,
        })
    }
}

impl From<Hop> for wire::Hop {
    fn from(hop: Hop) -> Self {
        Self { worker: hop.worker.to_string(), first_shard: hop.shards.start(), end_shard: hop.shards.end() }
    }
}

impl TryFrom<wire::Step> for StepMessage {
    type Error = WireError;

    fn try_from(wire: wire::Step) -> Result<Self, WireError> {
        let rows = wire.tokens.len();
        if !(1..=MAX_STEP_ROWS).contains(&rows) {
            return Err(WireError::new("tokens", format!("must be 1 to {MAX_STEP_ROWS}, got {rows}")));
        }
        if wire.targets.len() > rows {
            return Err(WireError::new("targets", "at most one for each token"));
        }
        if wire.timings.len() > MAX_HOPS {
            return Err(WireError::new("timings", "more than there can be hops"));
        }
        let tokens = |ids: Vec<u32>| ids.into_iter().map(TokenId).collect();
        let step = Step {
            position: wire.position,
            tokens: tokens(wire.tokens),
            activations: activations_from_bytes(&wire.activations)?,
            sample: wire.sample,
            targets: tokens(wire.targets),
            timings: convert(wire.timings),
        };
        Ok(Self { attempt: attempt(wire.attempt)?, step })
    }
}

impl From<StepMessage> for wire::Step {
    fn from(message: StepMessage) -> Self {
        let step = message.step;
        let ids = |tokens: Vec<TokenId>| tokens.into_iter().map(|token| token.0).collect();
        Self {
            attempt: message.attempt.0,
            position: step.position,
            tokens: ids(step.tokens),
            activations: activations_to_bytes(&step.activations),
            sample: step.sample,
            targets: ids(step.targets),
            timings: convert(step.timings),
        }
    }
}

/// Activations as little-endian f32 bytes.
#[must_use]
pub fn activations_to_bytes(values: &[f32]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(size_of_val(values));
    values.iter().for_each(|value| bytes.put_f32_le(*value));
    bytes.freeze()
}

/// Activations from little-endian f32 bytes. Whether they are finite and how many there must be is the engine's
/// business.
///
/// # Errors
/// When the bytes do not make whole numbers.
pub fn activations_from_bytes(bytes: &[u8]) -> Result<Vec<f32>, WireError> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(WireError::new(
            "activations",
            format!("{} bytes are not whole f32 numbers", bytes.len()),
        ));
    }
    Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

impl TryFrom<wire::HopFailed> for HopFailure {
    type Error = WireError;

    fn try_from(wire: wire::HopFailed) -> Result<Self, WireError> {
        let code = tonic::Code::from_i32(wire.code);
        let cause = RefusalCause::named(&wire.cause).unwrap_or_else(|| RefusalCause::from_code(code));
        let refusal = Refusal::new(cause, wire.message);
        Ok(Self { worker: parse("failed.worker", &wire.worker)?, refusal })
    }
}

impl From<HopFailure> for wire::HopFailed {
    fn from(failure: HopFailure) -> Self {
        Self {
            worker: failure.worker.to_string(),
            code: failure.refusal.cause.code().into(),
            cause: failure.refusal.cause.to_string(),
            message: failure.refusal.message,
        }
    }
}

impl TryFrom<wire::CollectRequest> for CollectSession {
    type Error = Refusal;

    fn try_from(wire: wire::CollectRequest) -> Result<Self, Refusal> {
        check_version(wire.protocol_version)?;
        Ok(Self { session: parse("session_id", &wire.session_id)?, attempt: attempt(wire.attempt)? })
    }
}

impl From<CollectSession> for wire::CollectRequest {
    fn from(collect: CollectSession) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            session_id: collect.session.to_string(),
            attempt: collect.attempt.0,
        }
    }
}

impl FromHop {
    /// As it is sent on a session's `Collect` stream.
    #[must_use]
    pub fn into_wire(self, attempt: Attempt) -> wire::CollectResponse {
        use wire::collect_response::Message;
        let message = match self {
            Self::Accepted => Message::Accepted(wire::Accepted {}),
            Self::Output(output) => output_to_wire(output),
        };
        wire::CollectResponse { attempt: attempt.0, message: Some(message) }
    }
}

fn output_to_wire(output: StepOutput) -> wire::collect_response::Message {
    use wire::collect_response::Message;
    let (scores, timings) = (convert(output.scores), convert(output.timings));
    match output.token {
        Some(token) => Message::Token(wire::SampledToken {
            position: output.position,
            token: token.0,
            logprob: output.logprob,
            top: convert(output.top),
            timings,
            scores,
        }),
        None => Message::Progress(wire::Progress { position: output.position, scores, timings }),
    }
}

impl TryFrom<wire::CollectResponse> for (Attempt, FromHop) {
    type Error = WireError;

    fn try_from(wire: wire::CollectResponse) -> Result<Self, WireError> {
        use wire::collect_response::Message;
        let message = match wire.message.ok_or_else(|| WireError::new("message", "is missing"))? {
            Message::Accepted(_) => FromHop::Accepted,
            Message::Token(token) => FromHop::Output(StepOutput {
                position: token.position,
                token: Some(TokenId(token.token)),
                logprob: token.logprob.map(logprob).transpose()?,
                top: try_convert(token.top)?,
                scores: try_convert(token.scores)?,
                timings: convert(token.timings),
            }),
            Message::Progress(progress) => FromHop::Output(StepOutput {
                position: progress.position,
                token: None,
                logprob: None,
                top: vec![],
                scores: try_convert(progress.scores)?,
                timings: convert(progress.timings),
            }),
        };
        Ok((attempt(wire.attempt)?, message))
    }
}

impl TryFrom<wire::TargetScore> for TargetScore {
    type Error = WireError;

    fn try_from(wire: wire::TargetScore) -> Result<Self, WireError> {
        let target = wire.target.ok_or_else(|| WireError::new("scores.target", "is missing"))?;
        Ok(Self { target: target.try_into()?, top: try_convert(wire.top)? })
    }
}

impl From<TargetScore> for wire::TargetScore {
    fn from(score: TargetScore) -> Self {
        Self { target: Some(score.target.into()), top: convert(score.top) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use swarm_types::TokenLogprob;

    use super::*;

    fn open() -> OpenSession {
        let hop = |start, end| Hop {
            worker: "12D3KooWa".parse().expect("valid"),
            shards: ShardRange::new(start, end).expect("valid"),
        };
        OpenSession {
            session: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().expect("valid"),
            attempt: Attempt(2),
            model_digest: ModelDigest([3; 32]),
            precision: Precision::Exact,
            total_shards: 8,
            hop: hop(2, 4),
            below: vec![hop(4, 8)],
            prompt_tokens: 5,
            max_positions: 100,
            sampling: SamplingParams { seed: 7, ..SamplingParams::greedy() },
        }
    }

    fn step() -> StepMessage {
        let step = Step {
            position: 9,
            tokens: vec![TokenId(1), TokenId(2)],
            activations: vec![0.5, -1.0, f32::MIN_POSITIVE, 3e8],
            sample: true,
            targets: vec![TokenId(2)],
            timings: vec![],
        };
        StepMessage { attempt: Attempt(1), step }
    }

    #[test]
    fn messages_down_a_route_are_read_back_as_sent() {
        for message in [ToHop::Open(Box::new(open())), ToHop::Step(step())] {
            assert_eq!(ToHop::try_from(wire::ForwardRequest::from(message.clone())), Ok(message));
        }
    }

    #[test]
    fn what_breaks_an_invariant_is_refused_by_field() {
        let refused = |change: fn(&mut wire::OpenSession)| {
            let mut wrong = wire::OpenSession::from(open());
            change(&mut wrong);
            OpenSession::try_from(wrong).expect_err("refused")
        };
        assert_eq!(refused(|o| o.protocol_version = 2).cause, RefusalCause::ProtocolVersion);
        let named = [
            (refused(|o| o.session_id = "x".into()), "session_id"),
            (refused(|o| o.attempt = 0), "attempt"),
            (refused(|o| o.model_digest.clear()), "model_digest"),
            (refused(|o| o.precision = "half".into()), "precision"),
            (refused(|o| o.hops.clear()), "hops"),
            (refused(|o| o.hops[1].first_shard = 5), "hops"),
            (refused(|o| o.total_shards = 9), "hops"),
            (refused(|o| o.max_positions = 4), "max_positions"),
            (refused(|o| o.sampling = None), "sampling"),
        ];
        for (refusal, field) in named {
            assert!(refusal.message.starts_with(field), "{field}: {refusal}");
        }
        let wrong = |change: fn(&mut wire::Step)| {
            let mut wrong = wire::Step::from(step());
            change(&mut wrong);
            StepMessage::try_from(wrong).expect_err("refused").field
        };
        assert_eq!(wrong(|s| s.tokens.clear()), "tokens");
        assert_eq!(wrong(|s| s.tokens = vec![0; MAX_STEP_ROWS + 1]), "tokens");
        assert_eq!(wrong(|s| s.activations = Bytes::from_static(b"abc")), "activations");
        assert_eq!(wrong(|s| s.targets = vec![1, 2, 3]), "targets");
    }

    fn sampled() -> StepOutput {
        let likely = |token, logprob| TokenLogprob { token: TokenId(token), logprob };
        StepOutput {
            position: 9,
            token: Some(TokenId(7)),
            logprob: Some(-0.5),
            top: vec![likely(7, -0.5), likely(3, -2.0)],
            scores: vec![TargetScore { target: likely(1, -3.0), top: vec![] }],
            timings: vec![],
        }
    }

    #[test]
    fn outputs_are_read_back_as_sent() {
        let progress = StepOutput { token: None, logprob: None, top: vec![], ..sampled() };
        for message in [FromHop::Accepted, FromHop::Output(sampled()), FromHop::Output(progress)] {
            let wire = message.clone().into_wire(Attempt(3));
            assert_eq!(<(Attempt, FromHop)>::try_from(wire), Ok((Attempt(3), message)));
        }
    }

    #[test]
    fn log_probabilities_that_cannot_be_are_refused_wherever_they_stand() {
        let read = |change: &dyn Fn(&mut wire::SampledToken)| {
            let wire::collect_response::Message::Token(mut token) = output_to_wire(sampled()) else {
                panic!("a token was sampled")
            };
            change(&mut token);
            let message = Some(wire::collect_response::Message::Token(token));
            <(Attempt, FromHop)>::try_from(wire::CollectResponse { attempt: 1, message })
        };
        for wrong in [f32::NAN, f32::INFINITY, 0.01] {
            let refused = [
                read(&|token| token.logprob = Some(wrong)),
                read(&|token| token.top[1].logprob = wrong),
                read(&|token| token.scores[0].target.as_mut().expect("there").logprob = wrong),
                read(&|token| token.scores[0].top = vec![wire::TokenLogprob { token: 1, logprob: wrong }]),
            ];
            assert!(refused.iter().all(|r| r.as_ref().is_err_and(|error| error.field == "logprob")));
        }
        let rounded = read(&|token| token.logprob = Some(1e-6));
        let (_, FromHop::Output(output)) = rounded.expect("rounding is forgiven") else {
            panic!("an output")
        };
        assert_eq!(output.logprob, Some(0.0));
    }

    proptest! {
        #[test]
        fn failures_and_wishes_are_read_back_as_sent(
            number in 0u128..u128::MAX,
            attempt in 1u32..,
            cause in 0..RefusalCause::ALL.len(),
            message in ".{0,40}",
        ) {
            let id = format!("{number:032x}");
            let session = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
            let collect = CollectSession { session: session.parse().expect("a UUID"), attempt: Attempt(attempt) };
            prop_assert_eq!(CollectSession::try_from(wire::CollectRequest::from(collect.clone())), Ok(collect));
            let refusal = Refusal::new(RefusalCause::ALL[cause], message);
            let failure = HopFailure { worker: "12D3KooWa".parse().expect("valid"), refusal };
            prop_assert_eq!(HopFailure::try_from(wire::HopFailed::from(failure.clone())), Ok(failure));
        }

        #[test]
        fn arbitrary_failures_and_wishes_are_refused_or_converted_but_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..128),
            text in ".{0,40}",
            numbers in any::<(u32, u32, i32)>(),
        ) {
            if let Ok(failed) = wire::HopFailed::decode(bytes.as_slice()) {
                let _ = HopFailure::try_from(failed);
            }
            if let Ok(collect) = wire::CollectRequest::decode(bytes.as_slice()) {
                let _ = CollectSession::try_from(collect);
            }
            let (protocol_version, attempt, code) = numbers;
            let collect = wire::CollectRequest { protocol_version, session_id: text.clone(), attempt };
            prop_assert!(CollectSession::try_from(collect).is_err(), "no UUID has these characters alone");
            let failed = wire::HopFailed { code, cause: text.clone(), message: text, worker: "aa".into() };
            let failure = HopFailure::try_from(failed);
            prop_assert!(failure.is_ok(), "an unknown cause or code is the nearest known one");
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_converted_but_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            if let Ok(request) = wire::ForwardRequest::decode(bytes.as_slice()) {
                let _ = ToHop::try_from(request);
            }
            if let Ok(response) = wire::CollectResponse::decode(bytes.as_slice()) {
                let _ = <(Attempt, FromHop)>::try_from(response);
            }
        }

        #[test]
        fn a_damaged_message_never_panics(at in any::<usize>(), to in any::<u8>()) {
            let mut bytes = wire::ForwardRequest::from(ToHop::Open(Box::new(open()))).encode_to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(request) = wire::ForwardRequest::decode(bytes.as_slice()) {
                let _ = ToHop::try_from(request);
            }
        }

        #[test]
        fn activations_keep_every_bit(values in proptest::collection::vec(any::<u32>(), 0..64)) {
            let values: Vec<f32> = values.into_iter().map(f32::from_bits).collect();
            let back = activations_from_bytes(&activations_to_bytes(&values)).expect("whole numbers");
            let bits = |list: &[f32]| list.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(&values));
        }
    }
}
