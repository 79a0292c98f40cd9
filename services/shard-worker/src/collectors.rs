//! Who waits for which session's tokens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use swarm_proto::{CollectSession, Refusal, RefusalCause, wire};
use swarm_types::{Attempt, SessionId};
use tokio::sync::mpsc;
use tonic::Status;

/// Answers that wait for the network; the gateway has only a few steps under way.
const ANSWERS_WAITING: usize = 16;
/// The gateway opens `Forward` right after `Collect` was accepted.
const FORWARD_WITHIN: Duration = Duration::from_secs(30);

/// Where a session's answers go.
pub(crate) type Collector = mpsc::Sender<Result<wire::CollectResponse, Status>>;

/// The gateways that wait for a session's `Forward` to arrive. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Collectors {
    waiting: Arc<Mutex<HashMap<SessionId, (Attempt, Collector)>>>,
    limit: usize,
}

impl Collectors {
    pub(crate) fn new(limit: usize) -> Self {
        Self { waiting: Arc::default(), limit }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<SessionId, (Attempt, Collector)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a gateway; forgotten when its session does not come in time.
    pub(crate) fn add(
        &self,
        collect: CollectSession,
    ) -> Result<(Collector, mpsc::Receiver<Result<wire::CollectResponse, Status>>), Refusal> {
        let CollectSession { session, attempt } = collect;
        let (collector, answers) = mpsc::channel(ANSWERS_WAITING);
        let mut waiting = self.waiting();
        waiting.retain(|_, (_, collector)| !collector.is_closed());
        if waiting.len() >= self.limit {
            return Err(Refusal::new(RefusalCause::Full, "too many sessions wait for their first step"));
        }
        if waiting.get(&session).is_some_and(|(current, _)| *current >= attempt) {
            return Err(Refusal::new(RefusalCause::StaleAttempt, format!("attempt {attempt} is not newer")));
        }
        waiting.insert(session.clone(), (attempt, collector.clone()));
        drop(waiting);
        let collectors = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(FORWARD_WITHIN).await;
            collectors.take(&session, attempt);
        });
        Ok((collector, answers))
    }

    /// The gateway of this session and attempt, if it waits.
    pub(crate) fn take(&self, session: &SessionId, attempt: Attempt) -> Option<Collector> {
        let mut waiting = self.waiting();
        match waiting.get(session) {
            Some((current, _)) if *current == attempt => waiting.remove(session).map(|(_, collector)| collector),
            _ => None,
        }
    }
}
