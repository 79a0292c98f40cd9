//! `shard.proto`: what goes up and down a route.

use swarm_types::{
    Attempt, Cut, Grammar, Hop, ModelDigest, NodeId, PROTOCOL_VERSION, Precision, SamplingParams, SessionId,
    ShardRange, Step, StepOutput, TokenId,
};

use crate::{Refusal, RefusalCause, WireError, model::ids, parse, step::MAX_HOPS, wire};

/// The first message of `Forward`.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenSession {
    /// Which generation.
    pub session: SessionId,
    /// Number of its current route.
    pub attempt: Attempt,
    /// Whose session it is.
    pub gateway: NodeId,
    /// The model it needs.
    pub model_digest: ModelDigest,
    /// In which precision.
    pub precision: Precision,
    /// How the model is cut.
    pub cut: Cut,
    /// The receiver's own place in the route.
    pub hop: Hop,
    /// The hops below the receiver, next first.
    pub below: Vec<Hop>,
    /// Positions below this are prompt.
    pub prompt_tokens: u32,
    /// Upper bound of the session's positions.
    pub max_positions: u32,
}

/// What flows down a route.
#[derive(Clone, PartialEq, Debug)]
pub enum ToHop {
    /// First message.
    Open(Box<OpenSession>),
    /// What comes between.
    Step(Step),
    /// Last message: nobody will come back for the session.
    End,
}

/// What comes up a route.
#[derive(Clone, PartialEq, Debug)]
pub enum FromBelow {
    /// The hop and all below have the session.
    Opened(Opened),
    /// Last message: a hop cannot go on.
    Failed(HopFailure),
}

/// Where a session stands from a hop on down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    /// The hop needs rows from this position on, and may be given some before.
    pub positions: u32,
    /// The hops below it need them from here on: what comes before is for the hop alone. At least `positions`.
    pub below: u32,
    /// Rows that hops send again on the way.
    pub replays: u32,
}

/// A hop that cannot go on, as it is told up the route.
#[derive(Clone, PartialEq, Debug)]
pub struct HopFailure {
    /// Which hop failed.
    pub worker: NodeId,
    /// Why.
    pub refusal: Refusal,
}

/// The gateway's wish for a session's tokens, and what the last hop has to know of it.
#[derive(Clone, PartialEq, Debug)]
pub struct CollectSession {
    /// Which generation.
    pub session: SessionId,
    /// Number of its current route.
    pub attempt: Attempt,
    /// How tokens are picked.
    pub sampling: SamplingParams,
    /// What is generated is held to it.
    pub grammar: Option<Grammar>,
    /// The session's tokens so far, from position 0; empty where nothing looks at them.
    pub tokens: Vec<TokenId>,
}

/// What the last hop sends to the gateway.
#[derive(Clone, PartialEq, Debug)]
pub enum FromHop {
    /// The last hop will pass on what it gets of this session. With what it answered last in an older attempt.
    Accepted(Option<StepOutput>),
    /// A step has passed the last shard.
    Output(StepOutput),
}

impl TryFrom<wire::ForwardRequest> for ToHop {
    type Error = Refusal;

    fn try_from(request: wire::ForwardRequest) -> Result<Self, Refusal> {
        match request.message {
            Some(wire::forward_request::Message::Open(open)) => Ok(Self::Open(Box::new(open.try_into()?))),
            Some(wire::forward_request::Message::Step(step)) => Ok(Self::Step(step.try_into()?)),
            Some(wire::forward_request::Message::End(_)) => Ok(Self::End),
            None => Err(WireError::new("message", "must be open, step or end").into()),
        }
    }
}

impl From<ToHop> for wire::ForwardRequest {
    fn from(message: ToHop) -> Self {
        Self {
            message: Some(match message {
                ToHop::Open(open) => wire::forward_request::Message::Open((*open).into()),
                ToHop::Step(step) => wire::forward_request::Message::Step(step.into()),
                ToHop::End => wire::forward_request::Message::End(wire::EndSession {}),
            }),
        }
    }
}

impl TryFrom<wire::ForwardResponse> for FromBelow {
    type Error = WireError;

    fn try_from(response: wire::ForwardResponse) -> Result<Self, WireError> {
        match response.message {
            Some(wire::forward_response::Message::Failed(failed)) => Ok(Self::Failed(failed.try_into()?)),
            Some(wire::forward_response::Message::Opened(opened)) => {
                let wire::Opened { positions, below, replays } = opened;
                if below < positions {
                    return Err(WireError::new("opened.below", "is less than opened.positions"));
                }
                Ok(Self::Opened(Opened { positions, below, replays }))
            }
            None => Err(WireError::new("message", "must be opened or failed")),
        }
    }
}

impl From<FromBelow> for wire::ForwardResponse {
    fn from(message: FromBelow) -> Self {
        Self {
            message: Some(match message {
                FromBelow::Opened(Opened { positions, below, replays }) => {
                    wire::forward_response::Message::Opened(wire::Opened { positions, below, replays })
                }
                FromBelow::Failed(failure) => wire::forward_response::Message::Failed(failure.into()),
            }),
        }
    }
}

fn check_version(version: u32) -> Result<(), Refusal> {
    if version == PROTOCOL_VERSION {
        return Ok(());
    }
    let what = format!("this node speaks {PROTOCOL_VERSION}, the caller {version}");
    Err(Refusal::of_field(RefusalCause::ProtocolVersion, "protocol_version", what))
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
        let cut = Cut::from_ends(wire.layer_ends).map_err(|error| WireError::new("layer_ends", error))?;
        if cut.total_shards() != wire.total_shards {
            return Err(WireError::new("layer_ends", "must be one for each of total_shards").into());
        }
        if wire.max_positions == 0 || wire.prompt_tokens > wire.max_positions {
            return Err(WireError::new("max_positions", "must be at least prompt_tokens and 1").into());
        }
        Ok(Self {
            session: parse("session_id", &wire.session_id)?,
            attempt: attempt(wire.attempt)?,
            gateway: parse("gateway", &wire.gateway)?,
            model_digest: parse("model_digest", &wire.model_digest)?,
            precision: parse("precision", &wire.precision)?,
            cut,
            hop,
            below,
            prompt_tokens: wire.prompt_tokens,
            max_positions: wire.max_positions,
        })
    }
}

impl From<OpenSession> for wire::OpenSession {
    fn from(open: OpenSession) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            session_id: open.session.to_string(),
            attempt: open.attempt.0,
            gateway: open.gateway.to_string(),
            model_digest: open.model_digest.to_string(),
            precision: open.precision.to_string(),
            total_shards: open.cut.total_shards(),
            hops: std::iter::once(open.hop).chain(open.below).map(Into::into).collect(),
            prompt_tokens: open.prompt_tokens,
            max_positions: open.max_positions,
            layer_ends: open.cut.ends().to_vec(),
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

impl TryFrom<wire::HopFailed> for HopFailure {
    type Error = WireError;

    fn try_from(wire: wire::HopFailed) -> Result<Self, WireError> {
        let code = tonic::Code::from_i32(wire.code);
        let cause = RefusalCause::named(&wire.cause).unwrap_or_else(|| RefusalCause::from_code(code));
        let field = Some(wire.field).filter(|field| !field.is_empty());
        let refusal = Refusal { cause, field, message: wire.message };
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
            field: failure.refusal.field.unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::CollectRequest> for CollectSession {
    type Error = Refusal;

    fn try_from(wire: wire::CollectRequest) -> Result<Self, Refusal> {
        check_version(wire.protocol_version)?;
        let sampling = wire.sampling.ok_or_else(|| WireError::new("sampling", "is missing"))?;
        Ok(Self {
            session: parse("session_id", &wire.session_id)?,
            attempt: attempt(wire.attempt)?,
            sampling: sampling.try_into()?,
            grammar: wire.grammar.map(Grammar::try_from).transpose()?,
            tokens: wire.tokens.into_iter().map(TokenId).collect(),
        })
    }
}

impl From<CollectSession> for wire::CollectRequest {
    fn from(collect: CollectSession) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            session_id: collect.session.to_string(),
            attempt: collect.attempt.0,
            sampling: Some(collect.sampling.into()),
            grammar: collect.grammar.map(Into::into),
            tokens: ids(collect.tokens),
        }
    }
}

impl FromHop {
    /// As it is sent on a session's `Collect` stream.
    #[must_use]
    pub fn into_wire(self, attempt: Attempt) -> wire::CollectResponse {
        use wire::collect_response::Message;
        let message = match self {
            Self::Accepted(last) => Message::Accepted(wire::Accepted { last: last.map(Into::into) }),
            Self::Output(output) => Message::Output(output.into()),
        };
        wire::CollectResponse { attempt: attempt.0, message: Some(message) }
    }
}

impl TryFrom<wire::CollectResponse> for (Attempt, FromHop) {
    type Error = WireError;

    fn try_from(wire: wire::CollectResponse) -> Result<Self, WireError> {
        use wire::collect_response::Message;
        let message = match wire.message.ok_or_else(|| WireError::new("message", "is missing"))? {
            Message::Accepted(accepted) => {
                FromHop::Accepted(accepted.last.map(StepOutput::try_from).transpose()?)
            }
            Message::Output(output) => FromHop::Output(output.try_into()?),
        };
        Ok((attempt(wire.attempt)?, message))
    }
}

#[cfg(test)]
mod tests;
