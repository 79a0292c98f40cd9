//! Which sessions run here, so that there are not too many, a newer attempt ends the older, and a drain can wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use swarm_proto::{Refusal, RefusalCause};
use swarm_types::{Attempt, SessionId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The running sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    running: Arc<Mutex<HashMap<SessionId, (Attempt, CancellationToken)>>>,
    count: watch::Sender<usize>,
    draining: watch::Sender<bool>,
    limit: usize,
}

/// A session's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    sessions: Sessions,
    session: SessionId,
    attempt: Attempt,
    /// Cancelled when a newer attempt takes over.
    pub superseded: CancellationToken,
}

impl Sessions {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            running: Arc::default(),
            count: watch::Sender::new(0),
            draining: watch::Sender::new(false),
            limit,
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<SessionId, (Attempt, CancellationToken)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many run, now and on every change.
    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// From now on new sessions are refused.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// A place for a session, taking over from an older attempt of it.
    pub(crate) fn enter(&self, session: &SessionId, attempt: Attempt) -> Result<Place, Refusal> {
        if *self.draining.borrow() {
            return Err(Refusal::new(RefusalCause::NotReady, "the worker is draining: use another replica"));
        }
        let mut running = self.running();
        match running.get(session) {
            Some((current, _)) if *current >= attempt => {
                let message = format!("attempt {attempt} is not newer than {current}");
                return Err(Refusal::new(RefusalCause::StaleAttempt, message));
            }
            Some((_, older)) => older.cancel(),
            None if running.len() >= self.limit => {
                let message = format!("all {} sessions are taken (--max-sessions)", self.limit);
                return Err(Refusal::new(RefusalCause::Full, message));
            }
            None => {}
        }
        let superseded = CancellationToken::new();
        running.insert(session.clone(), (attempt, superseded.clone()));
        self.count.send_replace(running.len());
        Ok(Place { sessions: self.clone(), session: session.clone(), attempt, superseded })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.sessions.running();
        if running.get(&self.session).is_some_and(|(attempt, _)| *attempt == self.attempt) {
            running.remove(&self.session);
            self.sessions.count.send_replace(running.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u32) -> SessionId {
        format!("00000000-0000-4000-8000-{number:012}").parse().expect("a UUID")
    }

    #[test]
    fn a_newer_attempt_takes_over_and_an_older_one_is_refused() {
        let sessions = Sessions::new(1);
        let first = sessions.enter(&session(1), Attempt(1)).expect("there is room");
        assert_eq!(sessions.enter(&session(2), Attempt(1)).expect_err("full").cause, RefusalCause::Full);
        let second = sessions.enter(&session(1), Attempt(2)).expect("newer");
        assert!(first.superseded.is_cancelled() && !second.superseded.is_cancelled());
        let stale = sessions.enter(&session(1), Attempt(1)).expect_err("older");
        assert_eq!(stale.cause, RefusalCause::StaleAttempt);
        drop(first);
        assert_eq!(*sessions.count().borrow(), 1, "the newer attempt keeps its place");
        drop(second);
        assert_eq!(*sessions.count().borrow(), 0);
    }

    #[test]
    fn while_draining_nobody_enters() {
        let sessions = Sessions::new(1);
        sessions.drain();
        assert_eq!(
            sessions.enter(&session(1), Attempt(1)).expect_err("draining").cause,
            RefusalCause::NotReady
        );
    }
}
