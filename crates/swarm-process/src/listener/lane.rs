//! What the requests of one connection have in common: over HTTP/2 what is not read of one holds up the others.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// With windows as they are set in the listener, half of what a connection may send is left to its other requests.
const MAY_WAIT: usize = 4;

/// One for each connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lane(Arc<Semaphore>);

impl Default for Lane {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAY_WAIT)))
    }
}

impl Lane {
    /// Lets one of its requests wait without being read, if not too many do.
    pub(crate) fn may_wait(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}
