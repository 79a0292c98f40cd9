//! Keeping life lines, and doubting those whose line has ended.

use std::time::Instant;

use libp2p::{
    PeerId,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use swarm_types::Transport;

use super::{Node, connected::Connection, watching::ACQUAINTED};
use crate::peers::{
    doubts::Why,
    life_lines::{patience, where_to_ask},
};

impl Node {
    /// A peer has a new connection.
    pub(super) fn line_opened(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        let Some(known) = self.peers.get(&peer) else { return };
        if !known.has(Transport::Quic) {
            return;
        }
        let is_line = known.connections.get(&connection).is_some_and(|opened| opened.is_life_line);
        let has_tcp = known.has(Transport::Tcp);
        self.life_lines.want(peer, now);
        if has_tcp && !self.life_lines.opened(&peer, now) && is_line {
            tracing::debug!(%peer, "no life line: there are as many as there may be");
            self.swarm.close_connection(connection);
        }
    }

    /// Dials for all the lines that are due.
    pub(super) fn dial_lines(&mut self, now: Instant) {
        let watches = |peer: &_| self.watching.watchers.contains_key(peer);
        for peer in self.life_lines.due(watches, now) {
            let addresses = self.life_lines.addresses(&peer);
            if addresses.is_empty() {
                self.life_lines.unreachable(&peer, now);
                continue;
            }
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses).build();
            self.life_lines.dialling(&peer, dial.connection_id(), now);
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%peer, %error, "no life line");
                self.life_lines.unreachable(&peer, now);
            }
        }
    }

    /// Makes lines again where there are none.
    pub(super) fn check_lines(&mut self, now: Instant) {
        for (peer, known) in &self.peers {
            if known.has(Transport::Quic) && !known.has(Transport::Tcp) {
                self.life_lines.has_none(peer, now);
            }
        }
    }

    /// Who met by TCP and is connected by QUIC since keeps the one as a life line beside the other.
    pub(super) fn settle_lines(&mut self, now: Instant) {
        for (peer, known) in &mut self.peers {
            for connection in known.turn_into_lines(ACQUAINTED, now) {
                self.swarm.behaviour_mut().heartbeat.becomes_a_line(connection, *peer);
            }
        }
    }

    /// The last TCP connection to a peer that is connected by QUIC is closed; `by_itself`: not by this node.
    pub(super) fn line_ended(&mut self, peer: PeerId, line: &Connection, by_itself: bool) {
        self.life_lines.ended(&peer, Instant::now());
        let Some(known) = self.peers.get(&peer).filter(|_| by_itself) else { return };
        let sockets = where_to_ask(&line.remote, line.dialled.is_some(), &self.life_lines.addresses(&peer));
        let connections = known.over(Transport::Quic).collect();
        let within = patience(self.links.round_trip(&peer));
        self.ask_after(peer, Why::Closed, connections, sockets, within);
    }
}
