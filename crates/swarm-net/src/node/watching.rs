//! Watching peers, and finding out whether one is gone that is doubted: because its life line has ended, because it is
//! silent, or because others miss it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use swarm_types::Transport;
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
        watched::{ALL_UP_TO, watched},
    },
    transport::{
        address,
        heartbeat::SILENT_AFTER,
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
/// Who is missed by others and silent to this node is gone so soon, although its kernel answers: others have waited.
const SILENT_TO_ALL_AFTER: Duration = Duration::from_secs(2);
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
        distrusted.retain(|peer, since| since.elapsed() < DISTRUSTED_FOR || silent.contains_key(peer));
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

    /// Whether there are too many for every pair to be watched.
    pub(super) fn is_large(&self) -> bool {
        self.peers.len() > ALL_UP_TO
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
            Sign::Silent { since } => {
                let since = *self.watching.silent.entry(peer).or_insert(since);
                log(self.membership.suspect(&node_id(&peer), true));
                let others_miss_it = self.watching.missed.is_missed(&peer);
                let within = if others_miss_it { SILENT_TO_ALL_AFTER } else { SILENT_AFTER };
                if since.elapsed() < within {
                    self.doubt(peer, Why::Silent);
                } else if let Some(known) = self.peers.get(&peer) {
                    // Whether its lines are dead too, they say by themselves.
                    let watched = known.over(Transport::Quic).collect();
                    self.close(peer, watched, Some(Gone::Silent));
                }
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
        self.watch_all_closely(now);
    }

    fn watch_all_closely(&mut self, now: Instant) {
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
        let connections = known.connections.keys().copied().collect();
        self.close(peer, connections, None);
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
        self.close(peer, dead, None);
        true
    }

    /// `gone`: what it says of the peer that these are closed.
    fn close(&mut self, peer: PeerId, connections: Vec<ConnectionId>, gone: Option<Gone>) {
        for connection in connections {
            self.swarm.close_connection(connection);
            self.on_closed(peer, connection, gone);
        }
    }

    /// The peer is not connected any more; `gone`: how that was noticed, if it was not by this node's will.
    pub(super) fn is_lost(&mut self, peer: &PeerId, gone: Option<Gone>, now: Instant) {
        if let Some(watcher) = self.watching.watchers.remove(peer) {
            watcher.abort();
        }
        // What was told is not told on.
        let is_news = !self.watching.missed.is_missed(peer);
        let is_silent = self.watching.silent.remove(peer).is_some() && gone == Some(Gone::Silent) && is_news;
        self.watching.distrusted.remove(peer);
        self.watching.doubts.forget(peer);
        self.watching.missed.forget(peer);
        let is_large = self.is_large();
        // In a small swarm all learn of a process that ends by their own life lines.
        if is_silent || (gone == Some(Gone::Closed) && is_news && is_large) {
            self.watching.missed.lost(*peer, now);
            self.tell_missed();
        }
        let before = if is_silent { self.watching.vanished.replace(now) } else { None };
        if is_large && before.is_some_and(|before| now.duration_since(before) < DISTRUSTED_FOR) {
            // It may be this node's own line that is cut, and then nobody can tell it whom it has lost.
            self.watch_all_closely(now);
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
                // What others have noticed, its kernel says at once.
                Why::Missed => match knock(&sockets, within).await {
                    Answer::Unheard => knock(&sockets, within).await,
                    first => first,
                },
                Why::Silent => {
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
            Some(Judged::Lost(lost)) => self.close(verdict.peer, lost.connections, Some(lost.how)),
            Some(Judged::ToBeWatched) => self.watch_closely(verdict.peer),
            None => {}
        }
    }
}
