//! Members: peers that are admitted, how they come to be, and those who wait for one.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, identify, swarm::ConnectionId};
use swarm_types::Transport;
use tokio::sync::oneshot;

use super::{Node, connected::Member, log, node_id};
use crate::{
    Role,
    calls::describe::{Described, Follower},
    peers::membership::TOMBSTONE,
    transport::address,
};

/// Handles that wait for connections; more are answered at once that there is none.
const MAX_AWAITED: usize = 1024;
/// Who was a member last time and cannot be reached for so long is somewhere else.
const LOOK_FOR: Duration = Duration::from_secs(2 * 60);

impl Node {
    /// The peer takes part from now on.
    pub(super) fn welcome(&mut self, peer: PeerId, role: Role, now: Instant) {
        self.enter_by(&peer, role, now);
        self.links.add(peer, role);
        self.epoch += 1;
        let follower = Follower {
            peer,
            epoch: self.epoch,
            links: self.links.clone(),
            keys: self.keys.clone(),
            metrics: self.metrics.clone(),
            heard: self.hearing.clone(),
            warned: false,
        };
        let follower = self.services.spawn(follower.run()).abort_handle();
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.member = Some(Member { epoch: self.epoch, follower, clock_told: false });
        let dialled: Vec<_> = known.connections.values().filter_map(|one| one.dialled.clone()).collect();
        for address in dialled {
            self.swarm.behaviour_mut().kad.add_address(&peer, address);
        }
        self.answer_awaiting(&peer);
        self.queries.changed(self.peers.len(), now);
        self.queries.hurry(now);
        self.publisher.peer_joined(now);
        self.torrents.holder.peer_joined(now);
        self.rewatch();
    }

    /// Says which peers are two processes with one key.
    pub(super) fn look_for_twins(&mut self, now: Instant) {
        for (peer, known) in self.peers.iter().filter(|(_, known)| known.connections.len() > 1) {
            let told = known.connections.values().map(|one| (one.since, &one.listens[..]));
            if let Some([one, other]) = self.twins.connected(*peer, told, now) {
                tracing::warn!(%peer, %one, %other, "two nodes use one identity: give each a key of its own, --identity");
            }
        }
    }

    /// Dials those who were members last time.
    pub(super) fn look_for_acquaintances(&mut self, now: Instant) {
        for (peer, addresses) in self.acquaintances.peers() {
            self.dialer.learn(*peer, addresses, LOOK_FOR, now);
        }
    }

    /// Notes those of now for the next time.
    pub(super) fn note_members(&mut self) {
        if self.acquaintances.are_kept() {
            let members = self.peers.iter().filter(|(_, known)| known.member.is_some());
            let members = members.map(|(peer, _)| (*peer, self.dialer.addresses(peer))).collect();
            self.acquaintances.note(&members, &self.services);
        }
    }

    /// The peer is one of those to enter by, if it is.
    pub(super) fn enter_by(&mut self, peer: &PeerId, role: Role, now: Instant) {
        if self.entries.contains(peer) {
            tracing::info!(%peer, "entered the swarm");
            if role == Role::Rendezvous {
                self.registrations.add(*peer, now);
            }
        }
    }

    /// The peer says where it listens.
    pub(super) fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        let (addresses, now) = (address::dialable_all(&info.listen_addrs), Instant::now());
        let known = self.peers.get_mut(&peer).and_then(|known| known.connections.get_mut(&connection));
        if let Some(known) = known {
            known.listens.clone_from(&addresses);
        }
        self.dialer.learn(peer, &addresses, TOMBSTONE, now);
        self.life_lines.told(&peer, &addresses, now);
        let quic = |address: &&Multiaddr| address::transport(address) == Some(Transport::Quic);
        let only_tcp = !addresses.iter().any(|address| quic(&address));
        for address in addresses.iter().filter(|address| only_tcp || quic(address)) {
            self.swarm.behaviour_mut().kad.add_address(&peer, address.clone());
        }
    }

    /// A member has described itself.
    pub(super) fn on_described(&mut self, described: Described) {
        let member = self.peers.get(&described.peer).and_then(|peer| peer.member.as_ref());
        if member.is_none_or(|member| member.epoch != described.epoch) {
            return;
        }
        let node = node_id(&described.peer);
        self.torrents.holdings.torrents.described(&node, described.torrents);
        self.torrents.holdings.wanted.described(&node, described.wanted);
        log(self.membership.described(&node, described.announcements));
        self.on_missed(described.peer, described.missed, Instant::now());
    }

    /// A member has other connections than before.
    pub(super) fn tell_transport(&mut self, peer: &PeerId, now: Instant) {
        let Some(known) = self.peers.get(peer).filter(|known| known.member.is_some()) else { return };
        if let Some(best) = known.connections.values().map(|connection| connection.transport).min() {
            log(self.membership.connected(&node_id(peer), best, now));
        }
    }

    /// The last connection to a member is gone, which was `expected` or not.
    pub(super) fn dismiss(&mut self, peer: &PeerId, expected: bool, now: Instant) {
        self.links.remove(peer);
        self.registrations.remove(peer);
        self.queries.changed(self.peers.len(), now);
        let node = node_id(peer);
        self.torrents.holdings.gone(&node);
        log(self.membership.disconnected(&node, expected, now));
    }

    /// A peer is not to be missed. `by`: the member that says so, if it was not asked for here. Of a peer that is
    /// connected nobody is believed but the peer itself. Gives whether it was lost, or will be expected to go.
    pub(super) fn forget(&mut self, peer: PeerId, by: Option<PeerId>) -> bool {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.leaves |= by == Some(peer);
            return by == Some(peer);
        }
        let (forgotten, news) = self.membership.forget(&node_id(&peer));
        if forgotten {
            tracing::info!(worker = %peer, by = by.map(tracing::field::display), "a lost worker is forgotten");
        }
        log(news);
        forgotten
    }

    /// A handle wants to reach a peer. One that others know may not be known here yet, right after a start: it is
    /// waited for as well, until the handle wants no more.
    pub(super) fn connect(&mut self, peer: PeerId, answer: oneshot::Sender<bool>) {
        let now = Instant::now();
        if self.peers.contains_key(&peer) {
            let _ = answer.send(true);
        } else if peer != self.me && self.awaited.len() < MAX_AWAITED {
            self.awaited.push((peer, answer));
            self.dialer.hurry(&peer, now);
            self.queries.hurry(now);
            self.dial(now);
        } else {
            let _ = answer.send(false);
        }
    }

    fn answer_awaiting(&mut self, peer: &PeerId) {
        for (_, answer) in self.awaited.extract_if(.., |(awaited, _)| awaited == peer) {
            // Whoever asked may have gone meanwhile.
            let _ = answer.send(true);
        }
    }
}
