//! Takes generations in: checks them, lets in as many as there is room for, and gives each a driver.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use swarm_types::{MAX_TOP_LOGPROBS, SessionId, SwarmStatus};
use tokio::{
    sync::{mpsc, watch},
    time::timeout_at,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span};

use super::{
    Generate, GenerationConfig, GenerationError, GenerationEvent, GenerationRequest, GenerationStream,
    account::{self, Account},
    admission::Admission,
    assignment::Assignment,
    driver::Driver,
    metrics::GenerationMetrics,
    outage::Outage,
    outlet::{Event, Inlet, outlet},
};
use crate::{
    record,
    swarm::{Reserved, Swarm},
    waits,
};

/// Generates by the swarm. Cheap to clone; all clones share one set of bounds.
#[derive(Clone, Debug)]
pub struct Generator {
    swarm: Swarm,
    config: GenerationConfig,
    metrics: GenerationMetrics,
    admission: Arc<Admission>,
    outage: Outage,
}

impl Generator {
    /// A generator that has nothing to do yet. Within a runtime, as it watches the swarm.
    #[must_use]
    pub fn new(swarm: Swarm, config: GenerationConfig, metrics: GenerationMetrics) -> Self {
        let admission = Arc::new(Admission::new(&config, metrics.clone()));
        let outage = Outage::watch(swarm.clone());
        Self { swarm, config, metrics, admission, outage }
    }

    /// The swarm's status, now and on every change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<SwarmStatus>> {
        self.swarm.status()
    }

    /// Whether a generation could start now.
    ///
    /// # Errors
    /// Says what is missing, for people.
    pub fn readiness(&self) -> Result<(), String> {
        match self.admission.is_closed() {
            true => Err("this gateway is shutting down".into()),
            false => self.swarm.readiness(),
        }
    }

    /// Generations that run now.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.admission.running()
    }

    /// Tokens of all generations since the start.
    #[must_use]
    pub fn generated_tokens(&self) -> u64 {
        self.metrics.generated_tokens()
    }

    /// Takes nothing more in and waits, up to `patience`, until all that runs has ended.
    pub async fn drain(&self, patience: Duration) {
        self.admission.drain(patience).await;
    }

    async fn begin(
        &self,
        request: GenerationRequest,
        started_at: Instant,
    ) -> Result<GenerationStream, GenerationError> {
        self.check(&request)?;
        if !self.outage.is_young(self.config.recovery_timeout) {
            self.ready()?;
        }
        let place = self.admission.enter(request.principal.clone()).await?;
        let reserved = self.reserve().await?;
        let running = self.metrics.started(request.prompt.len());
        request.principal.prompted(request.prompt.len() as u64);
        let session = new_session();
        let (span, waited) = (Span::current(), started_at.elapsed());
        let account = Account::new(span, record::current(), self.metrics.clone(), &session, waited);
        let measured = self.metrics.gen_ai().begun(&request, started_at);
        let (outlet, inlet) = outlet();
        let assignment = Assignment {
            swarm: self.swarm.clone(),
            config: self.config.clone(),
            metrics: self.metrics.clone(),
            request,
            session,
            started_at,
            outlet,
            place,
            _running: running,
            account,
            measured,
        };
        let driver = Driver::new(assignment, reserved.precision()).run(reserved).in_current_span();
        let task = AbortOnDropHandle::new(tokio::spawn(driver));
        let Inlet { opened, events } = inlet;
        opened.await.unwrap_or_else(|_| Err(broken_off()))?;
        Ok(events_until_end(events, task))
    }

    fn ready(&self) -> Result<(), GenerationError> {
        self.readiness().map_err(|reason| self.not_ready(reason))
    }

    fn not_ready(&self, reason: String) -> GenerationError {
        GenerationError::NotReady { reason, retry_after: self.outage.come_again() }
    }

    /// A route. Where the swarm served a moment ago, what is missing is waited for as a running answer waits.
    async fn reserve(&self) -> Result<Reserved, GenerationError> {
        let mut status = self.swarm.status();
        let deadline = tokio::time::Instant::now() + self.config.recovery_timeout;
        let mut counted = None;
        loop {
            status.mark_unchanged();
            if self.admission.is_closed() {
                self.ready()?;
            }
            let problem = match self.swarm.reserve(self.swarm.any_route()) {
                Ok(reserved) => {
                    waits::over();
                    return Ok(reserved);
                }
                Err(problem) => problem,
            };
            let reason = self.swarm.explain(&problem);
            if counted.is_none() && !self.outage.is_young(self.config.recovery_timeout) {
                return Err(self.not_ready(reason));
            }
            if counted.is_none() {
                tracing::debug!(reason, "waits for the swarm to be whole again");
                counted = Some(self.metrics.waits());
            }
            waits::for_this(&*reason);
            let news = async {
                tokio::select! {
                    changed = status.changed() => changed.is_ok(),
                    () = self.admission.closed() => true,
                }
            };
            if !matches!(timeout_at(deadline, news).await, Ok(true)) {
                let waited = self.config.recovery_timeout.as_secs_f32();
                return Err(self.not_ready(format!("{reason}, also after {waited} s")));
            }
        }
    }

    fn check(&self, request: &GenerationRequest) -> Result<(), GenerationError> {
        if request.prompt.is_empty() {
            return Err(GenerationError::invalid("prompt", "must have at least one token"));
        }
        if request.score_prompt.is_some_and(|top| top > MAX_TOP_LOGPROBS) {
            return Err(GenerationError::invalid(
                "score_prompt",
                format!("must be at most {MAX_TOP_LOGPROBS}"),
            ));
        }
        let sampling = request.sampling.clone().validated();
        sampling.map_err(|error| GenerationError::invalid(error.field(), error))?;
        let context_length = self.swarm.model().context_length;
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        match prompt_tokens.checked_add(request.max_tokens) {
            Some(positions) if positions <= context_length => Ok(()),
            _ => Err(GenerationError::ContextLength {
                field: request.operation.input(),
                prompt_tokens,
                max_tokens: request.max_tokens,
                context_length,
            }),
        }
    }
}

impl Generate for Generator {
    /// Resolves when every hop has accepted the session, so that whatever refuses it comes from here.
    fn start(&self, request: GenerationRequest) -> BoxFuture<'_, Result<GenerationStream, GenerationError>> {
        let (model, record) = (&self.swarm.model().name, record::current());
        let span = account::span(model, &request, record.as_ref());
        if let Some(record) = record {
            record.generates(model, request.prompt.len());
        }
        async move {
            let (operation, started_at) = (request.operation, Instant::now());
            let begun = self.begin(request, started_at).await;
            if let Err(error) = &begun {
                self.metrics.refused(error);
                record::refused(error.cause());
                self.metrics.gen_ai().refused(operation, error, started_at.elapsed());
                account::failed(&Span::current(), error);
            }
            begun
        }
        .instrument(span)
        .boxed()
    }
}

fn new_session() -> SessionId {
    uuid::Uuid::new_v4().to_string().parse().expect("a UUID is a session id")
}

fn broken_off() -> GenerationError {
    GenerationError::Internal { message: "the generation was broken off".into() }
}

/// The driver's events. With the stream the driver is dropped, and with it the session on every hop.
fn events_until_end(events: mpsc::Receiver<Event>, driver: AbortOnDropHandle<()>) -> GenerationStream {
    let state = Some((events, driver));
    stream::unfold(state, |state| async {
        let (mut events, driver) = state?;
        // A driver always tells its end, unless it was itself ended.
        let event = events.recv().await.unwrap_or_else(|| Err(broken_off()));
        let ended = matches!(event, Err(_) | Ok(GenerationEvent::Finished(_)));
        Some((event, (!ended).then_some((events, driver))))
    })
    .boxed()
}
