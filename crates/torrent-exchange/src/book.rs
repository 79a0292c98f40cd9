//! Whom to try, and when again. Pure: it is told what happens.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use swarm_types::NodeId;
use tokio::time::Instant;

use crate::{metrics::Left, peers::Banned};

/// After the first failure; doubles with each one more.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Who is slow stays so for a while, and would be given the last pieces of a fetch.
const SLOW_WAIT: Duration = Duration::from_secs(10);
/// Who comes back is noticed within so long.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Who had nothing that is needed may have it then; doubles too, or a swarm in which all wait for the same pieces would
/// do nothing but open streams.
const USELESS_WAIT: Duration = Duration::from_secs(5);
/// Notes that are kept; each is some hundred bytes, and it costs a connection to make one.
const NOTES: usize = 4096;

/// Who holds a torrent, and what is known of them.
#[derive(Debug)]
pub(crate) struct Book {
    holders: Vec<NodeId>,
    notes: HashMap<NodeId, Note>,
    banned: Banned,
    /// Nodes try the same holders in different orders.
    order: RandomState,
}

#[derive(Debug)]
struct Note {
    failures: u32,
    useless: u32,
    /// When it was left last.
    left: Instant,
    not_before: Instant,
}

impl Book {
    pub(crate) fn new(banned: Banned) -> Self {
        Self { holders: vec![], notes: HashMap::new(), banned, order: RandomState::new() }
    }

    /// Who holds it now. Says whether there is somebody who did not before.
    pub(crate) fn held_by(&mut self, holders: Vec<NodeId>) -> bool {
        let is_new = holders.iter().any(|holder| !self.holders.contains(holder));
        self.holders = holders;
        self.holders.sort_by_key(|holder| self.order.hash_one(holder));
        self.holders.dedup();
        is_new
    }

    /// Who may be tried now: first those that were not tried yet, in an order of this node's own, so that everybody is
    /// found in the end; then those that were left longest ago.
    pub(crate) fn candidates(&self, now: Instant) -> Vec<&NodeId> {
        let note = |holder: &NodeId| self.notes.get(holder);
        let may = |holder: &&NodeId| {
            !self.banned.contains(holder) && note(holder).is_none_or(|note| note.not_before <= now)
        };
        let mut candidates: Vec<_> = self.holders.iter().filter(may).collect();
        candidates.sort_by_key(|holder| note(holder).map(|note| note.left));
        candidates
    }

    /// A peer was left.
    pub(crate) fn left(&mut self, peer: &NodeId, cause: Left, now: Instant) {
        if cause == Left::Wrong {
            self.banned.insert(peer.clone());
        }
        if self.notes.len() >= NOTES {
            self.notes.retain(|_, note| note.not_before > now);
        }
        let nothing = Note { failures: 0, useless: 0, left: now, not_before: now };
        let note = self.notes.entry(peer.clone()).or_insert(nothing);
        let (first, times) = match cause {
            Left::Useless => (USELESS_WAIT, &mut note.useless),
            Left::Slow => (SLOW_WAIT, &mut note.failures),
            _ => (FIRST_WAIT, &mut note.failures),
        };
        let wait = (first * 2u32.pow((*times).min(16))).min(LONGEST_WAIT);
        *times += 1;
        note.left = now;
        // Not all who were sent away together come back together.
        let early = self.order.hash_one((peer, note.failures)) % (wait.as_millis() as u64 / 4);
        note.not_before = now + wait - Duration::from_millis(early);
    }

    /// A peer gave a piece: what was before counts no more.
    pub(crate) fn gave(&mut self, peer: &NodeId) {
        self.notes.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_fails_is_tried_ever_later_and_who_lies_never() {
        let peers = ["aa", "bb"].map(|name| name.parse::<NodeId>().unwrap());
        let mut book = Book::new(Banned::default());
        assert!(book.held_by(peers.to_vec()) && !book.held_by(peers.to_vec()));
        let start = Instant::now();
        let may =
            |book: &Book, after| book.candidates(start + Duration::from_secs(after)).contains(&&peers[0]);
        for (failures, wait) in [1u64, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
            book.left(&peers[0], Left::Stalled, start);
            assert!(may(&book, wait) && !may(&book, wait / 2), "{failures}");
        }
        book.gave(&peers[0]);
        assert!(may(&book, 0));
        book.left(&peers[0], Left::Wrong, start);
        assert!(!may(&book, 1_000_000));
        assert_eq!(book.candidates(start), [&peers[1]]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_tried_yet_comes_before_those_that_come_back() {
        let peers = ["aa", "bb", "cc"].map(|name| name.parse::<NodeId>().unwrap());
        let mut book = Book::new(Banned::default());
        book.held_by(peers.to_vec());
        let start = Instant::now();
        book.left(&peers[2], Left::Useless, start);
        book.left(&peers[0], Left::Useless, start + Duration::from_secs(1));
        let later = start + Duration::from_secs(9);
        assert_eq!(book.candidates(later), [&peers[1], &peers[2], &peers[0]]);
    }
}
