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
pub(crate) const FORWARD_WITHIN: Duration = Duration::from_secs(30);

/// Where a session's answers go.
pub(crate) type Collector = mpsc::Sender<Result<wire::CollectResponse, Status>>;

/// The gateways that wait for a session's `Forward` to arrive. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Collectors {
    waiting: Arc<Mutex<HashMap<SessionId, (Attempt, Collector)>>>,
    limit: usize,
    forward_within: Duration,
}

impl Collectors {
    pub(crate) fn new(limit: usize, forward_within: Duration) -> Self {
        Self { waiting: Arc::default(), limit, forward_within }
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
        match waiting.get(&session) {
            Some((current, _)) if *current >= attempt => {
                let message = format!("attempt {attempt} is not newer");
                return Err(Refusal::new(RefusalCause::StaleAttempt, message));
            }
            // It takes the place of the older attempt.
            Some(_) => {}
            None if waiting.len() >= self.limit => {
                return Err(Refusal::new(RefusalCause::Full, "too many sessions wait for their first step"));
            }
            None => {}
        }
        waiting.insert(session.clone(), (attempt, collector.clone()));
        drop(waiting);
        let collectors = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(collectors.forward_within).await;
            collectors.take(&session, attempt);
        });
        Ok((collector, answers))
    }

    /// The gateway of this session and attempt, if it waits.
    pub(crate) fn take(&self, session: &SessionId, attempt: Attempt) -> Option<Collector> {
        let mut waiting = self.waiting();
        match waiting.get(session) {
            Some((current, _)) if *current == attempt => {
                waiting.remove(session).map(|(_, collector)| collector)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(attempt: u32) -> CollectSession {
        let session = "00000000-0000-4000-8000-000000000001".parse().expect("a UUID");
        CollectSession { session, attempt: Attempt(attempt) }
    }

    #[tokio::test]
    async fn a_gateway_whose_session_does_not_come_is_let_go() {
        let collectors = Collectors::new(1, Duration::from_millis(1));
        let (collector, mut answers) = collectors.add(collect(1)).expect("there is room");
        drop(collector);
        assert!(answers.recv().await.is_none(), "its stream ends");
        assert!(collectors.take(&collect(1).session, Attempt(1)).is_none());
        assert!(collectors.add(collect(1)).is_ok(), "nothing is left of it");
    }

    #[tokio::test]
    async fn only_the_newest_attempt_is_waited_for_and_not_by_too_many() {
        let collectors = Collectors::new(1, FORWARD_WITHIN);
        let (_, mut first) = collectors.add(collect(1)).expect("there is room");
        assert_eq!(collectors.add(collect(1)).expect_err("the same").cause, RefusalCause::StaleAttempt);
        let other = CollectSession {
            session: "00000000-0000-4000-8000-000000000002".parse().expect("a UUID"),
            attempt: Attempt::FIRST,
        };
        assert_eq!(collectors.add(other).expect_err("full").cause, RefusalCause::Full);
        let (_second, _answers) = collectors.add(collect(2)).expect("newer, it takes the place of the older");
        assert!(first.recv().await.is_none(), "the older attempt's stream ends");
        assert!(collectors.take(&collect(1).session, Attempt(1)).is_none());
        assert!(collectors.take(&collect(2).session, Attempt(2)).is_some());
    }
}
