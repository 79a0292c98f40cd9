//! What a session was asked for, and what its hops are told of it.

use std::time::Instant;

use swarm_proto::{CollectSession, OpenSession};
use swarm_types::{Attempt, SessionId, TokenId};

use super::{
    GenerationConfig, GenerationRequest,
    account::Account,
    admission::Place,
    gen_ai::Measured,
    metrics::{Counted, GenerationMetrics},
    outlet::Outlet,
};
use crate::swarm::{Reserved, Swarm};

/// What a new driver is told.
pub(super) struct Assignment {
    pub(super) swarm: Swarm,
    pub(super) config: GenerationConfig,
    pub(super) metrics: GenerationMetrics,
    pub(super) request: GenerationRequest,
    pub(super) session: SessionId,
    /// When the client asked for it.
    pub(super) started_at: Instant,
    pub(super) outlet: Outlet,
    /// Held until the session has ended: its place among those that may run, and its count there.
    pub(super) place: Place,
    pub(super) _running: Counted,
    /// Tells its trace.
    pub(super) account: Account,
    /// Counts it when it ends.
    pub(super) measured: Measured,
}

impl Assignment {
    /// Prompt tokens that are scored: all but the first, which has none before it.
    pub(super) fn scores_wanted(&self) -> usize {
        self.request.score_prompt.map_or(0, |_| self.request.prompt.len() - 1)
    }

    /// Rows of the prompt of which something is told.
    pub(super) fn rows_to_read(&self) -> usize {
        if self.request.pools { self.request.prompt.len() } else { self.scores_wanted() }
    }

    /// What goes down the route.
    pub(super) fn open_session(&self, attempt: Attempt, reserved: &Reserved) -> OpenSession {
        let prompt_tokens = count(self.request.prompt.len());
        let hops = reserved.route().hops();
        OpenSession {
            session: self.session.clone(),
            attempt,
            gateway: self.swarm.id(),
            model_digest: self.swarm.model().digest,
            precision: reserved.precision(),
            cut: (*self.swarm.model().cut).clone(),
            hop: reserved.route().first().clone(),
            below: hops.get(1..).unwrap_or_default().to_vec(),
            prompt_tokens,
            max_positions: prompt_tokens.saturating_add(self.request.max_tokens),
        }
    }

    /// What the last hop has to know, when these tokens are there and so many rows of the prompt were read. Tokens only
    /// where it looks at them: for penalties and a grammar all, for scores the prompt's.
    pub(super) fn collect_session(
        &self,
        attempt: Attempt,
        tokens: &[TokenId],
        read: usize,
    ) -> CollectSession {
        let GenerationRequest { prompt, sampling, grammar, score_prompt, .. } = &self.request;
        let mut sampling = sampling.clone();
        // The prompt's alternatives come by the same parameter as the sampled tokens' ones.
        sampling.top_logprobs = sampling.top_logprobs.max(*score_prompt);
        let tokens = match read < self.scores_wanted() {
            _ if sampling.uses_history() || grammar.is_some() => tokens.to_vec(),
            true => prompt.clone(),
            false => vec![],
        };
        let session = self.session.clone();
        CollectSession { session, attempt, sampling, grammar: grammar.clone(), tokens }
    }
}

pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
