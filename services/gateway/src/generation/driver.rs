//! Drives one session over as many attempts as it takes.
//!
//! The driver's state is the list of tokens: with it a session can be rebuilt on any route and goes on as if nothing
//! had happened, because what is sampled depends on tokens, positions, seed and grammar only. So a lost hop means: a
//! new route, as many tokens as its hops do not have yet as one prompt, and on. Nothing is reported twice.

use std::{ops::Range, time::Instant};

use swarm_proto::{CollectSession, OpenSession};
use swarm_types::{
    Attempt, HopTiming, Precision, SampledToken, SessionId, Step, StepKind, StepOutput, TargetScore, TokenId,
};
use tokio::time::timeout_at;
use tracing::{debug, warn};

use super::{
    FinishReason, GeneratedToken, GenerationConfig, GenerationError, GenerationEvent, GenerationRequest,
    account::Account,
    admission::Place,
    gen_ai::Measured,
    metrics::{Counted, GenerationMetrics},
    outlet::{ClientGone, Outlet},
    pipeline::{Opening, Pipeline},
    recovery::{Recovery, Trouble},
};
use crate::swarm::{Reserved, Swarm};

/// Chunks of a prompt that are under way at once: enough that several hops work at the same time, and few enough
/// that a step of another session does not wait behind many.
const MAX_CHUNKS_UNDER_WAY: usize = 4;

/// One session.
pub(super) struct Driver {
    given: Assignment,
    attempt: Attempt,
    precision: Precision,
    /// The prompt and what was generated.
    tokens: Vec<TokenId>,
    /// Rows of the prompt whose scores, or share of the sum, were reported.
    read: usize,
    /// When the token that is waited for was first asked for.
    asked_at: Option<Instant>,
    /// When the last token came.
    last_token_at: Option<Instant>,
    recovery: Recovery,
    /// The attempt that came to its end.
    finished: Option<Pipeline>,
    /// The attempt that broke, until it is known whether another follows.
    broken: Option<Pipeline>,
}

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

/// How an attempt begins.
enum Resume {
    /// With the token at this position.
    At(usize),
    /// It has nothing left to do.
    Finished(FinishReason),
}

/// Why an attempt did not come to its end.
enum Interruption {
    Trouble(Trouble),
    ClientGone,
}

impl From<Trouble> for Interruption {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<ClientGone> for Interruption {
    fn from(_: ClientGone) -> Self {
        Self::ClientGone
    }
}

impl Driver {
    pub(super) fn new(given: Assignment, precision: Precision) -> Self {
        Self {
            recovery: Recovery::new(&given.config, given.request.grammar.is_some()),
            tokens: given.request.prompt.clone(),
            attempt: Attempt::FIRST,
            read: 0,
            asked_at: None,
            last_token_at: None,
            finished: None,
            broken: None,
            precision,
            given,
        }
    }

    /// Runs the session to its end, which the outlet tells.
    pub(super) async fn run(mut self, first: Reserved) {
        let end = self.generate(first).await;
        let generated = self.tokens.len() - self.given.request.prompt.len();
        self.given.metrics.ended(self.given.started_at.elapsed());
        match &end {
            Some(Ok(reason)) => {
                self.given.account.ended(&Ok(*reason));
                drop(self.given.measured);
                debug!(?reason, generated, "generation finished");
            }
            Some(Err(error)) if self.given.outlet.is_open() => {
                self.given.account.ended(&Err(error.clone()));
                self.given.metrics.failed(error);
                self.given.measured.failed(error);
                warn!(%error, generated, "generation failed");
            }
            Some(Err(error)) => {
                self.given.measured.refused();
                debug!(%error, "generation refused");
            }
            None => {
                drop(self.given.measured);
                debug!(generated, "client gone");
            }
        }
        if let Some(pipeline) = self.finished.take() {
            pipeline.end(self.given.place);
        }
        if let Some(end) = end {
            self.given.outlet.end(end).await;
        }
    }

    /// `None` when nobody is interested any more.
    async fn generate(&mut self, first: Reserved) -> Option<Result<FinishReason, GenerationError>> {
        if self.given.request.max_tokens == 0 && self.rows_to_read() == 0 {
            return Some(Ok(FinishReason::Length));
        }
        let mut reserved = first;
        loop {
            let trouble = match self.attempt(&reserved).await {
                Ok(reason) => return Some(Ok(reason)),
                Err(Interruption::ClientGone) => return None,
                Err(Interruption::Trouble(trouble)) => trouble,
            };
            self.given.account.broke();
            let worth_another = self.recovery.record(&trouble, reserved.route());
            if let Some(broken) = self.broken.take()
                && worth_another.is_ok()
                && self.recovery.has_answers()
            {
                // Otherwise nothing is there to come back for.
                broken.leave();
            }
            if let Err(error) = worth_another {
                return Some(Err(error));
            }
            // The old route's hops are free again, so the healthy ones among them are as good as any.
            drop(reserved);
            reserved = match self.replan(&trouble).await {
                Ok(reserved) => reserved,
                Err(error) => return Some(Err(error)),
            };
            self.attempt = self.attempt.next();
        }
    }

    /// One route, from the first token to the end or to trouble.
    async fn attempt(&mut self, reserved: &Reserved) -> Result<FinishReason, Interruption> {
        let opening = Opening { open: self.open_session(reserved), collect: self.collect_session() };
        self.given.account.begins(self.attempt, reserved.route());
        let step_timeout = self.given.config.step_timeout;
        let mut pipeline = Pipeline::open(&self.given.swarm, reserved.route(), opening, step_timeout).await?;
        let ended = self.drive(&mut pipeline).await;
        match &ended {
            Ok(_) => self.finished = Some(pipeline),
            Err(Interruption::Trouble(_)) => self.broken = Some(pipeline),
            Err(Interruption::ClientGone) => drop(pipeline),
        }
        ended
    }

    async fn drive(&mut self, pipeline: &mut Pipeline) -> Result<FinishReason, Interruption> {
        let begin = match self.resume(pipeline).await? {
            Resume::At(position) => position,
            Resume::Finished(reason) => return Ok(reason),
        };
        self.given.account.prefills(self.tokens.len() - begin);
        let mut output = self.prefill(pipeline, begin).await?;
        loop {
            if let Some(reason) = self.take_token(output).await? {
                return Ok(reason);
            }
            let position = self.tokens.len() - 1;
            self.send(pipeline, StepKind::Decode, position..position + 1).await?;
            output = self.next(pipeline).await?;
        }
    }

    /// Where this attempt goes on: behind what all hops have kept of the one before, and what is still to be reported.
    async fn resume(&mut self, pipeline: &mut Pipeline) -> Result<Resume, Interruption> {
        if self.attempt == Attempt::FIRST {
            // No hop has anything yet, so there is nothing to wait for.
            return Ok(Resume::At(0));
        }
        let kept = pipeline.opened().await? as usize;
        debug!(kept, tokens = self.tokens.len(), "the hops have the session");
        let all_read = self.read == self.rows_to_read();
        if all_read
            && let Some(lost) = pipeline.last_answer()
            && (lost.position as usize, lost.tokens.len()) == (self.tokens.len(), 1)
        {
            self.recovery.answered();
            self.given.outlet.open();
            // How long it took says nothing about the route.
            self.asked_at = None;
            if let Some(reason) = self.take_token(lost).await? {
                return Ok(Resume::Finished(reason));
            }
        }
        let begin = kept.min(self.tokens.len() - 1);
        Ok(Resume::At(if all_read { begin } else { begin.min(self.read) }))
    }

    /// Prompt tokens that are scored: all but the first, which has none before it.
    fn scores_wanted(&self) -> usize {
        self.given.request.score_prompt.map_or(0, |_| self.given.request.prompt.len() - 1)
    }

    /// Rows of the prompt of which something is told.
    fn rows_to_read(&self) -> usize {
        if self.given.request.pools { self.given.request.prompt.len() } else { self.scores_wanted() }
    }

    fn open_session(&self, reserved: &Reserved) -> OpenSession {
        let prompt_tokens = count(self.given.request.prompt.len());
        let hops = reserved.route().hops();
        OpenSession {
            session: self.given.session.clone(),
            attempt: self.attempt,
            gateway: self.given.swarm.id(),
            model_digest: self.given.swarm.model().digest,
            precision: reserved.precision(),
            cut: (*self.given.swarm.model().cut).clone(),
            hop: reserved.route().first().clone(),
            below: hops.get(1..).unwrap_or_default().to_vec(),
            prompt_tokens,
            max_positions: prompt_tokens.saturating_add(self.given.request.max_tokens),
        }
    }

    /// What the last hop has to know. Tokens only where it looks at them: for penalties and a grammar all, for scores
    /// the prompt's.
    fn collect_session(&self) -> CollectSession {
        let GenerationRequest { prompt, sampling, grammar, score_prompt, .. } = &self.given.request;
        let mut sampling = sampling.clone();
        // The prompt's alternatives come by the same parameter as the sampled tokens' ones.
        sampling.top_logprobs = sampling.top_logprobs.max(*score_prompt);
        let tokens = match self.read < self.scores_wanted() {
            _ if sampling.uses_history() || grammar.is_some() => self.tokens.clone(),
            true => prompt.clone(),
            false => vec![],
        };
        let session = self.given.session.clone();
        CollectSession { session, attempt: self.attempt, sampling, grammar: grammar.clone(), tokens }
    }

    /// Sends the tokens from `begin` on in chunks; gives the answer to the last.
    async fn prefill(&mut self, pipeline: &mut Pipeline, begin: usize) -> Result<StepOutput, Interruption> {
        let end = self.tokens.len();
        // When all hops have what was there before, the newest token is as any other that is generated.
        let newest = begin + 1 == end && begin >= self.given.request.prompt.len();
        let kind = if newest { StepKind::Decode } else { StepKind::Prefill };
        let mut start = begin;
        while start < end {
            if pipeline.under_way() >= MAX_CHUNKS_UNDER_WAY {
                self.next(pipeline).await?;
            }
            let chunk = start..self.chunk_end(start);
            start = chunk.end;
            self.send(pipeline, kind, chunk).await?;
        }
        while pipeline.under_way() > 1 {
            self.next(pipeline).await?;
        }
        self.next(pipeline).await
    }

    /// What a chunk's rows tell was reported all or not at all, so one ends where those that were read end.
    fn chunk_end(&self, start: usize) -> usize {
        let end = self.tokens.len().min(start + self.given.config.prefill_chunk as usize);
        if start < self.read { end.min(self.read) } else { end }
    }

    async fn send(
        &mut self,
        pipeline: &mut Pipeline,
        kind: StepKind,
        rows: Range<usize>,
    ) -> Result<(), Interruption> {
        let sample = rows.end == self.tokens.len() && self.given.request.max_tokens > 0;
        if sample {
            self.asked_at.get_or_insert_with(Instant::now);
        }
        let step = Step {
            kind,
            position: count(rows.start),
            input: self.tokens.get(rows.clone()).unwrap_or_default().to_vec().into(),
            samples: u32::from(sample),
            pools: self.given.request.pools && rows.start >= self.read,
            scores: self.scores(rows),
            ..Step::default()
        };
        debug!(position = step.position, rows = step.rows(), "step sent");
        Ok(pipeline.send(step).await?)
    }

    /// Of these rows, how many are followed by a token of the prompt that is to be scored and was not yet.
    fn scores(&self, rows: Range<usize>) -> u32 {
        if rows.start < self.read || self.given.request.pools {
            return 0;
        }
        count(rows.end.min(self.scores_wanted()).saturating_sub(rows.start))
    }

    /// The next answer; what it tells of the prompt is reported.
    async fn next(&mut self, pipeline: &mut Pipeline) -> Result<StepOutput, Interruption> {
        let mut output = pipeline.next().await?;
        debug!(position = output.position, "step answered");
        self.recovery.answered();
        self.given.outlet.open();
        let scores = std::mem::take(&mut output.scores);
        if !scores.is_empty() {
            self.read += scores.len();
            let scores = scores.into_iter().map(|score| self.trimmed(score)).collect();
            self.given.outlet.emit(GenerationEvent::PromptScores(scores)).await?;
        }
        let pooled = std::mem::take(&mut output.pooled);
        if !pooled.is_empty() {
            self.read = output.position as usize;
            self.given.outlet.emit(GenerationEvent::Pooled(pooled)).await?;
        }
        Ok(output)
    }

    /// Hops report as many alternatives as the sampled tokens or the prompt want, whichever are more.
    fn trimmed(&self, mut score: TargetScore) -> TargetScore {
        score.top.truncate(self.given.request.score_prompt.unwrap_or(0) as usize);
        score
    }

    /// Reports the sampled token. Some reason when it was the last.
    async fn take_token(&mut self, mut output: StepOutput) -> Result<Option<FinishReason>, Interruption> {
        let Some(sampled) = output.tokens.pop() else { return Ok(Some(FinishReason::Length)) };
        let token = sampled.token;
        if self.given.request.end_tokens.contains(&token) {
            return Ok(Some(FinishReason::End));
        }
        self.tokens.push(token);
        self.recovery.advanced();
        self.given.metrics.generated();
        self.given.measured.token();
        self.given.request.principal.generated();
        if self.tokens.len() == self.given.request.prompt.len() + 1 {
            self.given.metrics.first_token(self.given.started_at.elapsed());
        }
        let token = self.generated(sampled, output.timings);
        self.given.account.token(&token, self.given.started_at.elapsed());
        if let Some(last) = self.last_token_at.replace(Instant::now()) {
            self.given.metrics.decoded(&token, last.elapsed());
        }
        self.given.outlet.emit(GenerationEvent::Token(token)).await?;
        let room = self.given.request.prompt.len() + self.given.request.max_tokens as usize;
        Ok((self.tokens.len() >= room).then_some(FinishReason::Length))
    }

    fn generated(&mut self, sampled: SampledToken, hops: Vec<HopTiming>) -> GeneratedToken {
        let wanted = self.given.request.sampling.top_logprobs;
        let SampledToken { token, logprob, mut top } = sampled;
        top.truncate(wanted.unwrap_or(0) as usize);
        GeneratedToken {
            token,
            logprob: logprob.filter(|_| wanted.is_some()),
            top,
            hops,
            round_trip: self.asked_at.take().map(|asked| asked.elapsed()).unwrap_or_default(),
        }
    }

    /// Waits until there is another route, as long as that makes sense.
    async fn replan(&mut self, trouble: &Trouble) -> Result<Reserved, GenerationError> {
        self.given.metrics.retried(trouble.refusal.cause);
        let worker = trouble.worker.as_ref().map(tracing::field::display);
        warn!(
            worker,
            error = %trouble.refusal,
            cause = trouble.refusal.cause.as_str(),
            attempt = i64::from(self.attempt.0),
            "hop failed, replanning"
        );
        let deadline = self.recovery.deadline();
        let mut status = self.given.swarm.status();
        loop {
            status.mark_unchanged();
            let wish = self.recovery.wish(self.given.swarm.any_route(), self.precision);
            let problem = match self.given.swarm.reserve(wish) {
                Ok(reserved) => return Ok(reserved),
                Err(problem) => problem,
            };
            let missing = format!(
                "no other route within {} s: {problem}",
                self.given.config.recovery_timeout.as_secs_f32()
            );
            if self.recovery.is_refused(trouble) || tokio::time::Instant::now() >= deadline {
                return Err(self.recovery.give_up(trouble, Some(missing)));
            }
            let until = self.recovery.next_release().map_or(deadline, |release| release.min(deadline));
            if let Ok(Err(_)) = timeout_at(until, status.changed()).await {
                return Err(self.recovery.give_up(trouble, Some("this gateway is shutting down".into())));
            }
        }
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
