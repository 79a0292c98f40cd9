//! Telling which torrents this node holds: to the DHT by provider records, so that everybody finds it, and to connected
//! peers by its description, which also says how much of each is there. Knows what is to be told when.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use libp2p::kad::QueryId;
use swarm_types::{HeldTorrent, MAX_HELD_TORRENTS, ModelDigest};

use crate::directory::{
    publisher::{DEBOUNCE, RENEW_EVERY, RETRY_AFTER},
    records::{Kad, Keys},
};

/// Pieces come by the dozen each second; peers hear of them at most this often.
const DESCRIBE_EVERY: Duration = Duration::from_secs(1);

/// What this node holds, and who was told.
#[derive(Debug)]
pub(crate) struct Holder {
    keys: Keys,
    /// As peers would take them, in the order of their info-hashes.
    held: Vec<HeldTorrent>,
    /// What the node provides.
    provided: BTreeSet<ModelDigest>,
    /// Of these, what the DHT has taken.
    registered: BTreeSet<ModelDigest>,
    running: HashMap<QueryId, ModelDigest>,
    /// When to provide it again; nothing to provide when absent.
    due: Option<Instant>,
    failing: bool,
    last_told: Option<Instant>,
    tell_at: Option<Instant>,
}

impl Holder {
    pub(crate) fn new(keys: Keys) -> Self {
        Self {
            keys,
            held: vec![],
            provided: BTreeSet::new(),
            registered: BTreeSet::new(),
            running: HashMap::new(),
            due: None,
            failing: false,
            last_told: None,
            tell_at: None,
        }
    }

    /// The node holds these torrents now and no others. What no peer would take is left out.
    pub(crate) fn hold(&mut self, torrents: Vec<HeldTorrent>, now: Instant) {
        let torrents = in_order(torrents);
        if torrents == self.held {
            return;
        }
        let at = if lasting(&torrents) == lasting(&self.held) {
            self.last_told.map_or(now, |last| now.max(last + DESCRIBE_EVERY))
        } else {
            self.due = Some(now);
            now
        };
        self.tell_at = Some(self.tell_at.map_or(at, |tell_at| tell_at.min(at)));
        self.held = torrents;
    }

    /// What connected peers must be told now, if anything. It counts as told.
    pub(crate) fn news(&mut self, now: Instant) -> Option<&[HeldTorrent]> {
        self.tell_at.filter(|at| *at <= now)?;
        self.tell_at = None;
        self.last_told = Some(now);
        Some(&self.held)
    }

    /// A peer that could store something is connected.
    pub(crate) fn peer_joined(&mut self, now: Instant) {
        if self.failing
            && let Some(due) = &mut self.due
        {
            *due = (*due).min(now + DEBOUNCE);
        }
    }

    /// Puts into the DHT what is due: that this node provides what it holds, and nothing else any more.
    pub(crate) fn publish(&mut self, kad: &mut Kad, now: Instant) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let held: BTreeSet<ModelDigest> = self.held.iter().map(|torrent| torrent.info_hash).collect();
        for gone in self.provided.difference(&held) {
            kad.stop_providing(&self.keys.torrent(gone));
            self.registered.remove(gone);
        }
        for info_hash in &held {
            match kad.start_providing(self.keys.torrent(info_hash)) {
                Ok(query) => drop(self.running.insert(query, *info_hash)),
                Err(error) => tracing::warn!(%error, "this node's own torrent does not fit its store"),
            }
        }
        self.due = (!held.is_empty()).then_some(now + RENEW_EVERY);
        self.provided = held;
    }

    /// Takes the outcome of providing: whether another node has taken it. Gives the torrent when that was for the first
    /// time.
    pub(crate) fn on_provided(&mut self, id: QueryId, taken: bool, now: Instant) -> Option<&HeldTorrent> {
        let info_hash = self.running.remove(&id)?;
        self.failing = !taken;
        if self.failing {
            if let Some(due) = &mut self.due {
                *due = (*due).min(now + RETRY_AFTER);
            }
            return None;
        }
        let torrent = self.held.iter().find(|torrent| torrent.info_hash == info_hash)?;
        self.registered.insert(info_hash).then_some(torrent)
    }

    /// The node leaves: it provides nothing any more.
    pub(crate) fn leave(&mut self, kad: &mut Kad) {
        for gone in std::mem::take(&mut self.provided) {
            kad.stop_providing(&self.keys.torrent(&gone));
        }
        self.due = None;
    }
}

/// Those that peers would take, each once, in the order of their info-hashes.
fn in_order(torrents: Vec<HeldTorrent>) -> Vec<HeldTorrent> {
    let mut held = BTreeMap::new();
    for torrent in torrents {
        let info_hash = torrent.info_hash;
        match torrent.validated() {
            Ok(torrent) if held.len() < MAX_HELD_TORRENTS => drop(held.insert(info_hash, torrent)),
            Ok(_) => {
                tracing::warn!(%info_hash, most = MAX_HELD_TORRENTS, "holds too many torrents to tell all")
            }
            Err(error) => {
                tracing::warn!(%info_hash, field = error.field(), %error, "this node's own torrent would be refused");
            }
        }
    }
    held.into_values().collect()
}

/// Without what changes all the time.
fn lasting(torrents: &[HeldTorrent]) -> Vec<HeldTorrent> {
    torrents.iter().map(|torrent| HeldTorrent { pieces_held: 0, ..torrent.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use swarm_types::fixture::held_torrent;

    use super::*;

    fn holder() -> Holder {
        Holder::new(Keys::new("c".into(), 8))
    }

    fn told(holder: &mut Holder, now: Instant) -> Option<Vec<u32>> {
        let told = holder.news(now)?;
        Some(told.iter().map(|torrent| torrent.pieces_held).collect())
    }

    #[test]
    fn pieces_are_told_each_second_and_torrents_at_once() {
        let (mut holder, start) = (holder(), Instant::now());
        holder.hold(vec![held_torrent(1)], start);
        assert_eq!(holder.due, Some(start), "the DHT hears of it");
        assert_eq!(told(&mut holder, start), Some(vec![3]));
        assert_eq!(told(&mut holder, start), None, "nothing is told twice");

        holder.due = None;
        let whole = HeldTorrent { pieces_held: 4, ..held_torrent(1) };
        holder.hold(vec![whole.clone()], start);
        assert_eq!((told(&mut holder, start), holder.due), (None, None), "the DHT knows no pieces");
        assert_eq!(told(&mut holder, start + DESCRIBE_EVERY), Some(vec![4]));
        holder.hold(vec![whole.clone()], start + 2 * DESCRIBE_EVERY);
        assert_eq!(told(&mut holder, start + 2 * DESCRIBE_EVERY), None, "nothing changed");

        holder.hold(vec![held_torrent(2), whole], start + DESCRIBE_EVERY);
        assert_eq!(told(&mut holder, start + DESCRIBE_EVERY), Some(vec![4, 3]), "by info-hash");
        holder.hold(vec![], start + DESCRIBE_EVERY);
        assert_eq!(told(&mut holder, start + DESCRIBE_EVERY), Some(vec![]));
    }

    #[test]
    fn what_no_peer_would_take_is_not_told() {
        let (mut holder, now) = (holder(), Instant::now());
        let hostile = HeldTorrent { name: "a\nb".into(), ..held_torrent(1) };
        holder.hold(vec![hostile, held_torrent(2), held_torrent(2)], now);
        assert_eq!(holder.news(now), Some(&[held_torrent(2)][..]));
        holder.hold((0..=255).map(held_torrent).collect(), now);
        assert_eq!(told(&mut holder, now).map(|told| told.len()), Some(MAX_HELD_TORRENTS));
    }
}
