//! Drives one session over as many attempts as it takes.
//!
//! The driver's state is the list of tokens: with it a session can be rebuilt on any route and goes on as if nothing
//! had happened, because what is sampled depends on tokens, positions, seed and grammar only. So a lost hop means: a
//! new route, as many tokens as its hops do not have yet as one prompt, and on. Nothing is reported twice.

use std::{ops::Range, sync::Arc, time::Instant};

use swarm_proto::Opened;
use swarm_types::{
    Attempt, HopTiming, Precision, Route, SampledToken, Step, StepKind, StepOutput, SwarmStatus, TargetScore,
    TokenId,
};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{
    FinishReason, GeneratedToken, GenerationError, GenerationEvent,
    assignment::{Assignment, count},
    detour,
    outlet::ClientGone,
    pipeline::{Opening, Pipeline},
    recovery::{Recovery, Trouble},
};
use crate::swarm::Reserved;

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
    /// News of the swarm, among them that a hop leaves.
    news: watch::Receiver<Arc<SwarmStatus>>,
    /// The attempt that came to its end.
    finished: Option<Pipeline>,
    /// The attempt that broke, until it is known whether another follows.
    broken: Option<Pipeline>,
}

/// How an attempt begins.
enum Resume {
    /// With the tokens of these positions, which only the first hop lacks, and then with those behind them.
    Behind(Range<usize>),
    /// It has nothing left to do.
    Finished(FinishReason),
}

/// Why an attempt did not come to its end.
enum Interruption {
    Trouble(Trouble),
    /// A hop leaves, and here is a route without it.
    Moves(Reserved),
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
            news: given.swarm.status(),
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
                self.given.account.refused();
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
        if self.given.request.max_tokens == 0 && self.given.rows_to_read() == 0 {
            return Some(Ok(FinishReason::Length));
        }
        let mut reserved = first;
        loop {
            let trouble = match self.attempt(&reserved).await {
                Ok(reason) => return Some(Ok(reason)),
                Err(Interruption::ClientGone) => return None,
                Err(Interruption::Trouble(trouble)) => trouble,
                Err(Interruption::Moves(next)) => {
                    self.moves();
                    reserved = next;
                    continue;
                }
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
        let opening = Opening {
            open: self.given.open_session(self.attempt, reserved),
            collect: self.given.collect_session(self.attempt, &self.tokens, self.read),
        };
        self.given.account.begins(self.attempt, reserved.route());
        let step_timeout = self.given.config.step_timeout;
        let mut pipeline = Pipeline::open(&self.given.swarm, reserved.route(), opening, step_timeout).await?;
        let ended = self.drive(&mut pipeline).await;
        match &ended {
            Ok(_) => self.finished = Some(pipeline),
            Err(Interruption::Trouble(_) | Interruption::Moves(_)) => self.broken = Some(pipeline),
            Err(Interruption::ClientGone) => drop(pipeline),
        }
        ended
    }

    async fn drive(&mut self, pipeline: &mut Pipeline) -> Result<FinishReason, Interruption> {
        let begin = match self.resume(pipeline).await? {
            Resume::Behind(lost) => self.rebuild(pipeline, lost).await?,
            Resume::Finished(reason) => return Ok(reason),
        };
        self.given.account.prefills(self.tokens.len() - begin);
        let mut output = self.prefill(pipeline, begin).await?;
        loop {
            if let Some(reason) = self.take_token(pipeline.route(), output).await? {
                return Ok(reason);
            }
            if let Some(next) = self.around_who_leaves(pipeline.route()) {
                return Err(Interruption::Moves(next));
            }
            let position = self.tokens.len() - 1;
            self.send(pipeline, StepKind::Decode, position..position + 1).await?;
            output = self.next(pipeline).await?;
        }
    }

    /// A route without the hops that leave, when some do. Looked for only when there are news of the swarm.
    fn around_who_leaves(&mut self, route: &Route) -> Option<Reserved> {
        if !self.news.has_changed().unwrap_or(false) {
            return None;
        }
        if !detour::is_left(&self.news.borrow_and_update(), route) {
            return None;
        }
        self.recovery.leaves(route);
        let wish = self.recovery.wish(self.given.swarm.any_route(), self.precision);
        self.given.swarm.reserve(wish).ok()
    }

    /// The session leaves its route for another while all is well.
    fn moves(&mut self) {
        self.given.account.broke();
        self.given.metrics.moved();
        if let Some(left) = self.broken.take() {
            left.leave();
        }
        self.attempt = self.attempt.next();
        debug!(attempt = i64::from(self.attempt.0), "a hop leaves, the session moves to another route");
    }

    /// Where this attempt goes on: behind what all hops have kept of the one before, and what is still to be reported.
    async fn resume(&mut self, pipeline: &mut Pipeline) -> Result<Resume, Interruption> {
        if self.attempt == Attempt::FIRST {
            // No hop has anything yet, so there is nothing to wait for.
            return Ok(Resume::Behind(0..0));
        }
        let Opened { positions, below, replays } = pipeline.opened().await?;
        debug!(positions, below, replays, tokens = self.tokens.len(), "the hops have the session");
        let all_read = self.read == self.given.rows_to_read();
        if all_read
            && let Some(lost) = pipeline.last_answer()
            && (lost.position as usize, lost.tokens.len()) == (self.tokens.len(), 1)
        {
            self.recovery.answered();
            self.given.outlet.open();
            // How long it took says nothing about the route.
            self.asked_at = None;
            if let Some(reason) = self.take_token(pipeline.route(), lost).await? {
                return Ok(Resume::Finished(reason));
            }
        }
        let newest = self.tokens.len() - 1;
        let most = if all_read { newest } else { newest.min(self.read) };
        Ok(Resume::Behind((positions as usize).min(most)..(below as usize).min(most)))
    }

    /// Gives the first hop the tokens that it alone lacks. Gives where all hops stand then.
    async fn rebuild(&mut self, pipeline: &mut Pipeline, lost: Range<usize>) -> Result<usize, Interruption> {
        let mut start = lost.start;
        while start < lost.end {
            let rows = start..lost.end.min(start + self.given.config.prefill_chunk as usize);
            start = rows.end;
            let input = self.tokens.get(rows.clone()).unwrap_or_default().to_vec().into();
            let step = Step { position: count(rows.start), input, rebuilds: true, ..Step::default() };
            debug!(position = step.position, rows = step.rows(), "step sent that rebuilds");
            pipeline.send(step).await?;
        }
        Ok(lost.end)
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
        count(rows.end.min(self.given.scores_wanted()).saturating_sub(rows.start))
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
    async fn take_token(
        &mut self,
        route: &Route,
        mut output: StepOutput,
    ) -> Result<Option<FinishReason>, Interruption> {
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
            self.given.metrics.decoded(&token, route, last.elapsed());
            self.given.swarm.answered(route, &token.hops, token.round_trip);
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
        detour::reserve(&self.given.swarm, &mut self.recovery, self.precision, trouble).await
    }
}
