//! Peers that have just been noticed as gone: told to all, because not everybody watches everybody, and heard from
//! others. No IO and no clock of its own.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// A loss is told for so long.
const TOLD_FOR: Duration = Duration::from_secs(5);
/// As many losses are told, the latest.
pub(crate) const MAX_TOLD: usize = 16;
/// What others tell of one peer makes this node ask it only so often.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// What is told and what was heard.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    told: Vec<(PeerId, Instant)>,
    /// What each member told last, so that only what is new counts.
    heard: HashMap<PeerId, Vec<PeerId>>,
    asked: HashMap<PeerId, Instant>,
}

impl Missed {
    /// This node has noticed that the peer is gone.
    pub(crate) fn lost(&mut self, peer: PeerId, now: Instant) {
        self.told.retain(|(other, _)| *other != peer);
        if self.told.len() >= MAX_TOLD {
            self.told.remove(0);
        }
        self.told.push((peer, now));
    }

    /// The peer is connected: whatever was told of it is over.
    pub(crate) fn is_back(&mut self, peer: &PeerId) {
        self.told.retain(|(other, _)| other != peer);
    }

    /// Forgets what is told for long enough.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.told.retain(|(_, since)| now.duration_since(*since) < TOLD_FOR);
        self.asked.retain(|_, at| now.duration_since(*at) < ASK_EVERY);
    }

    /// What to tell.
    pub(crate) fn told(&self) -> Vec<PeerId> {
        self.told.iter().map(|(peer, _)| *peer).collect()
    }

    /// A member tells whom it misses: this and nobody else. Gives those that are worth asking now.
    pub(crate) fn heard(&mut self, from: PeerId, missed: Vec<PeerId>, now: Instant) -> Vec<PeerId> {
        if missed.is_empty() {
            self.heard.remove(&from);
            return vec![];
        }
        let before = self.heard.insert(from, missed.clone()).unwrap_or_default();
        let news = missed.into_iter().filter(|peer| !before.contains(peer));
        let is_asked = |peer: &PeerId| match self.asked.get(peer) {
            Some(at) if now.duration_since(*at) < ASK_EVERY => true,
            _ => self.asked.insert(*peer, now).is_some_and(|_| false),
        };
        let mut is_asked = is_asked;
        news.filter(|peer| !is_asked(peer)).collect()
    }

    /// Whether a member tells now that it misses the peer.
    pub(crate) fn is_missed(&self, peer: &PeerId) -> bool {
        self.heard.values().any(|missed| missed.contains(peer))
    }

    /// The member is gone itself.
    pub(crate) fn forget(&mut self, member: &PeerId) {
        self.heard.remove(member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_for_a_while_or_until_the_peer_is_back() {
        let (mut missed, now) = (Missed::default(), Instant::now());
        let peers: Vec<PeerId> = (0..=MAX_TOLD).map(|_| PeerId::random()).collect();
        for peer in &peers {
            missed.lost(*peer, now);
        }
        assert_eq!(missed.told(), peers[1..], "the latest");
        missed.is_back(&peers[1]);
        missed.lost(peers[2], now + TOLD_FOR);
        missed.expire(now + TOLD_FOR);
        assert_eq!(missed.told(), peers[2..3]);
    }

    #[test]
    fn what_many_tell_of_one_peer_makes_it_be_asked_once() {
        let (mut missed, now) = (Missed::default(), Instant::now());
        let [one, other, lost] = [(); 3].map(|()| PeerId::random());
        assert!(!missed.is_missed(&lost));
        assert_eq!(missed.heard(one, vec![lost], now), [lost]);
        assert_eq!(missed.heard(other, vec![lost], now), []);
        assert!(missed.is_missed(&lost) && !missed.is_missed(&one));
        let later = now + ASK_EVERY;
        assert_eq!(missed.heard(one, vec![lost], later), [], "it says so still");
        assert_eq!(missed.heard(one, vec![], later), []);
        assert_eq!(missed.heard(one, vec![lost], later), [lost], "once more");
    }
}
