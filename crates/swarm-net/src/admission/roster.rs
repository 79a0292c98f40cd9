//! What peers have proven. No IO and no clock of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::keyring::{Key, Keyring};
use crate::Role;

/// Between a proof and the connection that it was given on.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// What a peer has proven.
#[derive(Clone, Debug)]
pub(crate) struct Proven {
    /// What it is.
    pub(crate) role: Role,
    /// With which key.
    pub(crate) key: Key,
    pub(crate) at: Instant,
}

/// All who have proven that they belong here, as they did last. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster(Arc<Mutex<HashMap<PeerId, Proven>>>);

impl Roster {
    pub(crate) fn enter(&self, peer: PeerId, proven: Proven) {
        self.all().insert(peer, proven);
    }

    /// What the peer is; nothing when it has not proven anything.
    pub(crate) fn role(&self, peer: &PeerId) -> Option<Role> {
        self.all().get(peer).map(|proven| proven.role)
    }

    /// Forgets those who are not `connected` and will not be any more.
    pub(crate) fn forget(&self, connected: impl Fn(&PeerId) -> bool, now: Instant) {
        self.all().retain(|peer, proven| connected(peer) || now.duration_since(proven.at) < ARRIVES_WITHIN);
    }

    /// Those who have proven themselves with a key that does not hold any more.
    pub(crate) fn withdrawn(&self, ring: &Keyring) -> Vec<PeerId> {
        let all = self.all();
        all.iter().filter(|(_, proven)| !ring.accepts(&proven.key)).map(|(peer, _)| *peer).collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<PeerId, Proven>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
