//! Watching peers, and finding out whether one is gone that is doubted: because its life line has ended, because it is
//! silent, or because others miss it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::time::sleep;

use super::{Node, log, node_id, watchers::Watching};
use crate::{
    calls::{
        describe::Description,
        watch::{Sign, WORKS_WITH_FOR, Watcher},
    },
    metrics::Gone,
    peers::{
        doubts::{Judged, Verdict, Why},
        life_lines::{MAX_LINES, where_to_ask},
        news::News,
        watched::watched,
    },
    transport::{
        address,
        knock::{Answer, knock},
    },
};

/// Two who meet may both dial. Who connects so long after does not know that it is connected.
pub(super) const ACQUAINTED: Duration = Duration::from_secs(5);
/// Whether it answers by what was open before is known by then, however slow it was before.
const DISTRUSTED_FOR: Duration = Duration::from_secs(10);
/// Who is watched closely because it has connected again is asked so soon.
const ASKED_WITHIN: Duration = Duration::from_secs(1);
/// Who is silent so long after this machine has moved may be so for that.
const MOVED_FOR: Duration = Duration::from_secs(30);
/// For the kernel of a silent peer to answer.
const KERNEL_WITHIN: Duration = Duration::from_millis(200);
/// Packets are lost now and then, so it is asked a second time, so much later.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A silent peer that nobody can ask is taken for gone after so much more.
const BENEFIT: Duration = Duration::from_millis(400);

impl Node {
    /// Watches whom it should, and nobody else.
    pub(super) fn rewatch(&mut self) {
        let members = self.peers.iter().filter(|(_, known)| known.member.is_some());
        let Watching { distrusted, silent, .. } = &mut self.watching;
        distrusted.retain(|peer, since| since.elapsed() < DISTRUSTED_FOR || silent.contains(peer));
        let in_use = |peer| {
            self.links.was_called_within(peer, WORKS_WITH_FOR) || self.watching.distrusted.contains_key(peer)
        };
        let peers: BTreeMap<PeerId, bool> = members.map(|(peer, _)| (*peer, in_use(peer))).collect();
        let wanted = watched(&self.me, &peers);
        let unwatched = self.watching.watchers.extract_if(|peer, _| !wanted.contains(peer));
        let unwatched: Vec<PeerId> = unwatched
            .map(|(peer, watcher)| {
                watcher.abort();
                peer
            })
            .collect();
        // Nobody would take it back.
        unwatched.into_iter().for_each(|peer| self.on_sign(peer, Sign::Answers));
        for peer in wanted {
            self.watching.watchers.entry(peer).or_insert_with(|| {
                let (links, metrics) = (self.links.clone(), self.metrics.clone());
                let is_distrusted = self.watching.distrusted.contains_key(&peer);
                let watcher =
                    Watcher::new(peer, links, metrics, self.watching.telling.clone(), is_distrusted);
                tokio::spawn(watcher.run()).abort_handle()
            });
        }
    }

    /// A watched peer shows something.
    pub(super) fn on_sign(&mut self, peer: PeerId, sign: Sign) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        match sign {
            Sign::Silent { .. } if self.is_heard(&peer) => {}
            Sign::Silent { since } if self.has_come_back(peer, since) => {}
            Sign::Silent { .. } if self.is_left_behind(peer) => {}
            Sign::Silent { .. } => {
                self.watching.silent.insert(peer);
                log(self.membership.suspect(&node_id(&peer), true));
                self.doubt(peer, Why::Silent);
            }
            Sign::Answers => {
                self.watching.silent.remove(&peer);
                self.watching.doubts.forget(&peer);
                log(self.membership.suspect(&node_id(&peer), false));
            }
        }
    }

    /// A member tells whom it misses.
    pub(super) fn on_missed(&mut self, from: PeerId, missed: Vec<PeerId>, now: Instant) {
        for peer in self.watching.missed.heard(from, missed, now) {
            if self.peers.contains_key(&peer) && !self.watching.doubts.contains(&peer) {
                tracing::debug!(%peer, %from, "it is missed by another");
                self.doubt(peer, Why::Missed);
            }
        }
    }

    /// The peer has a new connection. What is doubted of those before it is doubted still.
    pub(super) fn is_there(&mut self, peer: &PeerId) {
        self.watching.missed.is_back(peer);
    }

    /// Whether the peer answers is to be found out at once: it may have begun again, or others miss it.
    pub(super) fn watch_closely(&mut self, peer: PeerId) {
        self.watching.distrusted.insert(peer, Instant::now());
        self.rewatch();
    }

    /// This machine has lost an address. What ran by it is dead, and nobody says which connections did: all peers are
    /// watched closely.
    pub(super) fn has_moved(&mut self, address: &Multiaddr, now: Instant) {
        if self.peers.is_empty() || address::ip(address).is_none_or(|ip| ip.is_loopback()) {
            return;
        }
        tracing::info!(%address, "this machine has lost an address: peers that do not answer are dialled again");
        self.watching.moved = Some(now);
        let members = self.peers.iter().filter(|(_, known)| known.member.is_some());
        self.watching.distrusted.extend(members.map(|(peer, _)| (*peer, now)));
        self.rewatch();
    }

    /// Whether all connections to a silent peer are older than this machine's last move. If so, they are closed, and
    /// it is dialled again.
    fn is_left_behind(&mut self, peer: PeerId) -> bool {
        let Some(moved) = self.watching.moved.filter(|moved| moved.elapsed() < MOVED_FOR) else {
            return false;
        };
        let Some(known) = self.peers.get(&peer) else { return false };
        if known.connections.values().any(|one| !one.is_life_line && one.since > moved) {
            return false;
        }
        let connections: Vec<ConnectionId> = known.connections.keys().copied().collect();
        for connection in connections {
            self.swarm.close_connection(connection);
            self.on_closed(peer, connection, None);
        }
        true
    }

    /// Whether a peer that is silent since then has a connection that is newer, or came so shortly before that this is
    /// why it was asked. If so, those before it are dead: it has begun again, or moved.
    fn has_come_back(&mut self, peer: PeerId, since: Instant) -> bool {
        let Some(known) = self.peers.get(&peer) else { return false };
        let Some(first_met) = known.first_met() else { return false };
        let others = known.connections.values().filter(|one| !one.is_life_line).map(|one| one.since);
        let is_back = |at: &Instant| *at + ASKED_WITHIN > since && at.duration_since(first_met) >= ACQUAINTED;
        let Some(back) = others.filter(is_back).min() else { return false };
        let dead = known.connections.iter().filter(|(_, one)| one.since < back);
        let dead: Vec<ConnectionId> = dead.map(|(connection, _)| *connection).collect();
        log([News::Restarted(node_id(&peer))]);
        for connection in dead {
            self.swarm.close_connection(connection);
            self.on_closed(peer, connection, None);
        }
        true
    }

    /// The peer is not connected any more; `gone`: how that was noticed, if it was not by this node's will.
    pub(super) fn is_lost(&mut self, peer: &PeerId, gone: Option<Gone>, now: Instant) {
        if let Some(watcher) = self.watching.watchers.remove(peer) {
            watcher.abort();
        }
        let noticed = self.watching.silent.remove(peer);
        self.watching.distrusted.remove(peer);
        self.watching.doubts.forget(peer);
        self.watching.missed.forget(peer);
        // Of a process that ends all learn by their own life lines, and what was told is not told on.
        if noticed && gone == Some(Gone::Silent) {
            self.watching.missed.lost(*peer, now);
            self.tell_missed();
        }
    }

    /// Forgets what is told for long enough.
    pub(super) fn expire_missed(&mut self, now: Instant) {
        self.watching.missed.expire(now);
        self.tell_missed();
    }

    fn tell_missed(&mut self) {
        let missed = self.watching.missed.told();
        self.description.send_if_modified(|told| {
            let changed = told.missed != missed;
            if changed {
                *told = Arc::new(Description { missed, ..Description::clone(told) });
            }
            changed
        });
    }

    /// Whether something comes from the peer, if not what it was asked for: behind a large step on a slow line answers
    /// are late.
    fn is_heard(&self, peer: &PeerId) -> bool {
        self.swarm.behaviour().heartbeat.is_heard(peer)
    }

    /// Asks the machine of a peer that may be gone.
    fn doubt(&mut self, peer: PeerId, why: Why) {
        let Some(known) = self.peers.get(&peer) else { return };
        let told = match self.life_lines.addresses(&peer) {
            none if none.is_empty() => self.dialer.addresses(&peer),
            told => told,
        };
        let ask = |remote: &_, dialled| where_to_ask(remote, dialled, &told);
        let mut sockets: Vec<SocketAddr> =
            known.connections.values().flat_map(|one| ask(&one.remote, one.dialled.is_some())).collect();
        sockets.sort_unstable();
        sockets.dedup();
        let connections = known.connections.keys().copied().collect();
        let patience = self.links.round_trip(&peer).unwrap_or_default() * 3;
        self.ask_after(peer, why, connections, sockets, patience.max(KERNEL_WITHIN));
    }

    /// Finds out whether a process still listens at one of these ports.
    pub(super) fn ask_after(
        &mut self,
        peer: PeerId,
        why: Why,
        connections: Vec<ConnectionId>,
        sockets: Vec<SocketAddr>,
        within: Duration,
    ) {
        // A member that makes and ends lines without end is not asked without end.
        let may_ask = self.watching.verdicts.len() < MAX_LINES;
        if !may_ask || (sockets.is_empty() && why == Why::Closed) {
            tracing::debug!(%peer, "it may be gone, and nobody can be asked");
            return;
        }
        let number = self.watching.doubts.doubt(peer, why, connections);
        self.watching.verdicts.spawn(async move {
            let answer = match why {
                Why::Closed => knock(&sockets, within).await,
                _ if sockets.is_empty() => {
                    sleep(BENEFIT).await;
                    Answer::Unheard
                }
                _ => {
                    let again = async {
                        sleep(AGAIN_AFTER).await;
                        knock(&sockets, within).await
                    };
                    match tokio::join!(knock(&sockets, within), again) {
                        (Answer::Gone | Answer::Unheard, second) => second,
                        (first, _) => first,
                    }
                }
            };
            Verdict { peer, number, answer }
        });
    }

    /// It is known what became of a peer that was doubted.
    pub(super) fn on_verdict(&mut self, verdict: &Verdict) {
        tracing::debug!(peer = %verdict.peer, answer = ?verdict.answer, "it was asked after");
        match self.watching.doubts.judge(verdict) {
            Some(Judged::Lost(lost)) => {
                for connection in lost.connections {
                    self.swarm.close_connection(connection);
                    self.on_closed(verdict.peer, connection, Some(lost.how));
                }
            }
            Some(Judged::ToBeWatched) => self.watch_closely(verdict.peer),
            None => {}
        }
    }
}
