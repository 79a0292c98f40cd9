//! The driver's end of a generation's stream.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{FinishReason, GenerationError, GenerationEvent};

/// Events that wait for a client that reads slower than the swarm answers.
const WAITING_EVENTS: usize = 32;
/// A client that reads nothing for this long holds its session for nothing.
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);

/// What comes out of a driver.
pub(super) type Event = Result<GenerationEvent, GenerationError>;

/// Nobody listens any more.
#[derive(Debug)]
pub(super) struct ClientGone;

/// Where a driver reports to.
pub(super) struct Outlet {
    /// Taken when every hop has accepted the session, or when that failed.
    opened: Option<oneshot::Sender<Result<(), GenerationError>>>,
    events: mpsc::Sender<Event>,
}

/// The other end.
pub(super) struct Inlet {
    /// Whether the session began.
    pub(super) opened: oneshot::Receiver<Result<(), GenerationError>>,
    /// What happens in it.
    pub(super) events: mpsc::Receiver<Event>,
}

/// Both ends.
pub(super) fn outlet() -> (Outlet, Inlet) {
    let (opened, was_opened) = oneshot::channel();
    let (events, received) = mpsc::channel(WAITING_EVENTS);
    (Outlet { opened: Some(opened), events }, Inlet { opened: was_opened, events: received })
}

impl Outlet {
    /// Every hop has accepted the session. Only the first call matters.
    pub(super) fn open(&mut self) {
        if let Some(opened) = self.opened.take() {
            // A client that has left is noticed with the first event.
            let _ = opened.send(Ok(()));
        }
    }

    /// Whether the session began.
    pub(super) fn is_open(&self) -> bool {
        self.opened.is_none()
    }

    /// Reports an event.
    pub(super) async fn emit(&self, event: GenerationEvent) -> Result<(), ClientGone> {
        self.send(Ok(event)).await
    }

    /// Reports the end.
    pub(super) async fn end(mut self, end: Result<FinishReason, GenerationError>) {
        match (self.opened.take(), end) {
            (Some(opened), Err(error)) => {
                let _ = opened.send(Err(error));
            }
            (opened, end) => {
                if let Some(opened) = opened {
                    let _ = opened.send(Ok(()));
                }
                let _ = self.send(end.map(GenerationEvent::Finished)).await;
            }
        }
    }

    async fn send(&self, event: Event) -> Result<(), ClientGone> {
        match timeout(CLIENT_PATIENCE, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ClientGone),
        }
    }
}
