//! Whom a node watches and doubts, as its loop keeps it.

use std::{collections::HashMap, time::Instant};

use libp2p::PeerId;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use crate::{
    calls::{
        links::Links,
        streams::Intake,
        watch::{Sign, answer},
    },
    peers::{
        doubts::{Doubts, Verdict},
        missed::Missed,
    },
};

/// Signs that wait for the loop.
const SIGNS: usize = 256;
/// Streams of those who watch this node that wait to be answered, which happens at once.
const WATCHERS: usize = 64;
/// Whom this node watches, and whom it doubts.
pub(super) struct Watching {
    pub(super) watchers: HashMap<PeerId, AbortHandle>,
    pub(super) signs: mpsc::Receiver<(PeerId, Sign)>,
    pub(super) telling: mpsc::Sender<(PeerId, Sign)>,
    /// Who may have begun again, or is missed by others, and since when that is known.
    pub(super) distrusted: HashMap<PeerId, Instant>,
    /// When this machine last lost an address.
    pub(super) moved: Option<Instant>,
    /// Whose silence this node has noticed by itself, and since when they are.
    pub(super) silent: HashMap<PeerId, Instant>,
    /// When the last one was lost by silence that nobody else had missed before.
    pub(super) vanished: Option<Instant>,
    pub(super) doubts: Doubts,
    /// What is being found out, of each peer one thing at most that counts.
    pub(super) verdicts: JoinSet<Verdict>,
    pub(super) missed: Missed,
}

impl Watching {
    /// Begins with answering those who watch this node.
    pub(super) fn new(intake: &Intake, links: &Links) -> Self {
        let (telling, signs) = mpsc::channel(SIGNS);
        if let Some(watchers) = intake.seat().listen(WATCHERS) {
            tokio::spawn(answer(watchers, links.clone(), telling.clone()));
        }
        let (doubts, missed) = (Doubts::default(), Missed::default());
        let (watchers, distrusted, silent) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (moved, vanished, verdicts) = (None, None, JoinSet::new());
        Self { watchers, signs, telling, distrusted, moved, silent, vanished, doubts, verdicts, missed }
    }

    /// Whether one of the connections to the peer may be dead.
    pub(super) fn distrusts(&self, peer: &PeerId) -> bool {
        self.distrusted.contains_key(peer) || self.silent.contains_key(peer) || self.doubts.contains(peer)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watchers.values().for_each(AbortHandle::abort);
    }
}
