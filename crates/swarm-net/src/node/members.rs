//! Members: peers that are admitted, how they come to be, and those who wait for one.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId, identify, rendezvous};
use swarm_types::Transport;
use tokio::sync::oneshot;

use super::{Node, connected::Member, log, node_id};
use crate::{
    admission::Verdict,
    behaviour,
    calls::describe::{Described, Follower},
    peers::membership::TOMBSTONE,
    transport::address,
};

/// Handles that wait for connections; more are answered at once that there is none.
const MAX_AWAITED: usize = 1024;

/// Why a peer is sent away.
#[derive(Clone, Copy)]
pub(super) enum Unwelcome<'a> {
    /// It belongs to another swarm, or to none: so it calls itself.
    Foreign(&'a str),
    /// It has not said in time what it calls itself.
    Late,
    /// It has to make room for another stranger.
    Crowded,
}

impl Unwelcome<'_> {
    fn cause(self) -> &'static str {
        match self {
            Self::Foreign(_) => "foreign_swarm",
            Self::Late => "late",
            Self::Crowded => "crowded",
        }
    }
}

impl Node {
    pub(super) fn on_identified(&mut self, peer: PeerId, info: &identify::Info) {
        let now = Instant::now();
        let verdict = self.admission.identified(&peer, &info.protocol_version);
        match verdict {
            Verdict::Foreign => return self.send_away(peer, Unwelcome::Foreign(&info.protocol_version)),
            Verdict::Gone => return,
            Verdict::Admitted => self.welcome(peer, now),
            Verdict::Member => {}
        }
        self.learn_addresses(peer, &info.listen_addrs, now);
        if self.entries.contains(&peer) && info.protocols.contains(&rendezvous::PROTOCOL_NAME) {
            self.registrations.add(peer, now);
        }
        if verdict == Verdict::Admitted {
            self.queries.hurry(now);
            self.publisher.peer_joined(now);
        }
    }

    /// The peer takes part from now on.
    fn welcome(&mut self, peer: PeerId, now: Instant) {
        if self.entries.contains(&peer) {
            entered(&peer);
        }
        self.links.add(peer);
        self.swarm.behaviour_mut().streams.admit(peer);
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
        known.member = Some(Member { epoch: self.epoch, follower });
        let dialled: Vec<_> = known.connections.values().filter_map(|one| one.dialled.clone()).collect();
        for address in dialled {
            self.swarm.behaviour_mut().kad.add_address(&peer, address);
        }
        self.tell_transport(&peer, now);
        self.answer_awaiting(&peer, true);
    }

    /// The peer says where it listens.
    fn learn_addresses(&mut self, peer: PeerId, listening: &[Multiaddr], now: Instant) {
        let addresses = address::dialable_all(listening);
        self.dialer.learn(peer, &addresses, TOMBSTONE, now);
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
        if let Some(role) = described.role {
            self.links.described(&described.peer, role);
        }
        log(self.membership.described(&node_id(&described.peer), described.announcements));
    }

    /// A member has other connections than before.
    pub(super) fn tell_transport(&mut self, peer: &PeerId, now: Instant) {
        let Some(known) = self.peers.get(peer).filter(|known| known.member.is_some()) else { return };
        if let Some(best) = known.connections.values().map(|connection| connection.transport).min() {
            log(self.membership.connected(&node_id(peer), best, now));
        }
    }

    /// The last connection to a member is gone.
    pub(super) fn dismiss(&mut self, peer: &PeerId, now: Instant) {
        self.links.remove(peer);
        self.swarm.behaviour_mut().streams.dismiss(peer);
        self.registrations.remove(peer);
        log(self.membership.disconnected(&node_id(peer), now));
    }

    /// The peer takes no part.
    pub(super) fn send_away(&mut self, peer: PeerId, why: Unwelcome<'_>) {
        self.metrics.refused_because(why.cause());
        let is_entry = self.entries.contains(&peer);
        match why {
            Unwelcome::Foreign(name) if is_entry => {
                let expected = behaviour::swarm_version(self.keys.cluster());
                tracing::warn!(%peer, is = name, %expected, "this entry belongs to another swarm, check --cluster");
            }
            Unwelcome::Late if is_entry => {
                tracing::warn!(%peer, "this entry does not say which swarm it belongs to");
            }
            Unwelcome::Foreign(_) | Unwelcome::Late => {}
            Unwelcome::Crowded => tracing::debug!(%peer, "too many strangers at once, the oldest goes"),
        }
        // Who only made room may belong here.
        if !matches!(why, Unwelcome::Crowded) {
            self.entries.foreign(&peer, Instant::now());
            self.dialer.forget(&peer);
        }
        self.answer_awaiting(&peer, false);
        // Gone already: nothing to close.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    /// A handle wants to reach a peer.
    pub(super) fn connect(&mut self, peer: PeerId, answer: oneshot::Sender<bool>) {
        let now = Instant::now();
        if self.admission.admits(&peer) {
            let _ = answer.send(true);
        } else if self.dialer.knows(&peer) && self.awaited.len() < MAX_AWAITED {
            self.awaited.push((peer, answer));
            self.dialer.hurry(&peer, now);
            self.dial(now);
        } else {
            let _ = answer.send(false);
        }
    }

    fn answer_awaiting(&mut self, peer: &PeerId, connected: bool) {
        for (_, answer) in self.awaited.extract_if(.., |(awaited, _)| awaited == peer) {
            // Whoever asked may have gone meanwhile.
            let _ = answer.send(connected);
        }
    }
}

/// A peer to enter by is admitted.
pub(super) fn entered(peer: &PeerId) {
    tracing::info!(%peer, "entered the swarm");
}
