//! The node's loop: the one task that owns the libp2p swarm and all that is known of peers.
//!
//! What to do is decided in the modules it calls; here events are handed to them and their answers carried out.

use std::{
    collections::HashMap,
    io,
    net::TcpListener,
    ops::ControlFlow,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, ListenerId, TransportError},
    },
    swarm::{self, SwarmEvent},
};
use swarm_types::{Admission, NodeId, SwarmStatus};
use tokio::{
    runtime::Handle,
    select,
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use self::{connected::Peer, torrents::Torrents, watchers::Watching};
use crate::{
    Identity, NetError, Role, ShardOffer,
    admission::{exchange, gate::Gate, keyring::Keyring, renewals::Renewals, roster::Roster},
    behaviour::{Behaviour, MemberStreams},
    calls::{
        describe::{Described, Description},
        links::Links,
        streams::Intakes,
    },
    command::Command,
    config::Settings,
    directory::{
        announcer::{Announcer, Reach},
        publisher::Publisher,
        queries::Queries,
        records::{Keys, RecordFilter},
        registrations::Registrations,
    },
    metrics::Metrics,
    peers::{
        acquaintances::Acquaintances, dialer::Dialer, entry::Entries, holdings, life_lines::LifeLines,
        membership::Membership, news::News, twins::Twins,
    },
    transport::{self, activity::Activity, address},
};

mod connected;
mod connections;
mod dht;
mod leaving;
mod life_lines;
mod members;
mod proofs;
mod sharing;
mod torrents;
mod watchers;
mod watching;

/// How late something that is due may be, while nodes come and go.
const TICK: Duration = Duration::from_millis(50);
/// And when none did for so long.
const QUIET_TICK: Duration = Duration::from_millis(250);
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// Forgetting is not urgent.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Listening either works at once or does not.
const LISTEN_WITHIN: Duration = Duration::from_secs(5);
/// A listener on all interfaces tells one address after the other, without saying which is the last.
const ADDRESSES_WITHIN: Duration = Duration::from_millis(50);
/// Descriptions that wait for the loop.
const DESCRIPTIONS: usize = 64;

/// What a node is made of.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) role: Role,
    pub(crate) identity: Identity,
    pub(crate) links: Links,
    pub(crate) metrics: Metrics,
    /// Where members are asked what they serve: checking what they answer is no work for the loop's thread.
    pub(crate) services: Handle,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) offers: watch::Receiver<Vec<ShardOffer>>,
    pub(crate) own_files: watch::Receiver<holdings::OwnFiles>,
    pub(crate) intakes: Intakes,
}

/// What a node tells its handles.
pub(crate) struct Ends {
    pub(crate) status: watch::Receiver<Arc<SwarmStatus>>,
    pub(crate) description: watch::Receiver<Arc<Description>>,
    pub(crate) addresses: watch::Receiver<Vec<String>>,
    pub(crate) torrents: watch::Receiver<Arc<holdings::PeerTorrents>>,
    pub(crate) wanted: watch::Receiver<Arc<holdings::PeerWants>>,
}

/// A running node.
pub(crate) struct Node {
    swarm: Swarm<Behaviour>,
    /// Held so that no other process becomes this node.
    _identity: Identity,
    me: PeerId,
    keys: Keys,
    external: Vec<Multiaddr>,
    listeners: Vec<ListenerId>,

    ring: Keyring,
    roster: Roster,
    renewals: Renewals,
    membership: Membership,
    announcer: Announcer,
    dialer: Dialer,
    life_lines: LifeLines,
    watching: Watching,
    acquaintances: Acquaintances,
    twins: Twins,
    entries: Entries,
    registrations: Registrations,
    queries: Queries,
    publisher: Publisher,
    filter: RecordFilter,
    torrents: Torrents,
    peers: HashMap<PeerId, Peer>,
    /// Handles that wait for a peer's connection.
    awaited: Vec<(PeerId, oneshot::Sender<bool>)>,
    epoch: u64,
    swept: Instant,
    /// When somebody last came or went, here or at another node.
    stirred: Instant,

    links: Links,
    metrics: Metrics,
    services: Handle,
    commands: mpsc::Receiver<Command>,
    offers: watch::Receiver<Vec<ShardOffer>>,
    heard: mpsc::Receiver<Described>,
    hearing: mpsc::Sender<Described>,
    status: watch::Sender<Arc<SwarmStatus>>,
    description: watch::Sender<Arc<Description>>,
    addresses: watch::Sender<Vec<String>>,
}

impl Node {
    /// Opens the ports.
    pub(crate) async fn start(setup: Setup) -> Result<(Self, Ends), NetError> {
        let Setup { settings, role, identity, links, metrics, intakes, .. } = setup;
        let (key, id) = (identity.key().clone(), identity.id().clone());
        let (me, now, activity) = (key.public().to_peer_id(), Instant::now(), Activity::new());
        let keys = Keys::new(settings.cluster.clone(), settings.total_shards);
        let (ring, roster) = (Keyring::new(&settings.cluster, settings.secrets)?, Roster::default());
        let membership =
            Membership::new(settings.cluster.clone(), id.clone(), settings.admission, settings.total_shards);
        let watching = Watching::new(&intakes.watches, &links);
        let streams = MemberStreams::new(&settings.cluster, intakes, &roster, &metrics)?;
        let behaviour = Behaviour::new(&key, &keys, role, streams, activity.clone())?;
        let (admit, proofs) = (exchange::protocol(&settings.cluster)?, (ring.clone(), roster.clone()));
        let gate = Gate::new(me, role, admit, proofs, metrics.clone());
        let swarm = swarm_of(transport::build(&key, &activity, &gate)?, behaviour, me);
        let (hearing, heard) = mpsc::channel(DESCRIPTIONS);
        let mut node = Self {
            swarm,
            status: watch::Sender::new(Arc::clone(membership.status())),
            acquaintances: Acquaintances::of(&identity),
            _identity: identity,
            me,
            external: settings.external,
            listeners: vec![],
            ring,
            roster,
            renewals: Renewals::default(),
            membership,
            announcer: Announcer::new(key, id, keys.clone()),
            dialer: Dialer::new(me),
            life_lines: LifeLines::new(me),
            watching,
            twins: Twins::new(me, now),
            entries: Entries::new(settings.entries, now),
            registrations: Registrations::new(&settings.cluster),
            queries: Queries::new(keys.clone(), metrics.clone(), now),
            publisher: Publisher::new(metrics.clone()),
            filter: RecordFilter::new(keys.clone(), me),
            torrents: Torrents::new(&keys, me, &metrics, setup.own_files),
            keys,
            peers: HashMap::new(),
            awaited: vec![],
            epoch: 0,
            swept: now,
            stirred: now,
            links,
            metrics,
            services: setup.services,
            commands: setup.commands,
            offers: setup.offers,
            heard,
            hearing,
            description: watch::Sender::default(),
            addresses: watch::Sender::default(),
        };
        node.listen(&settings.listen).await?;
        node.look_for_acquaintances(now);
        tell_admission(settings.admission);
        let ends = node.ends();
        Ok((node, ends))
    }

    fn ends(&self) -> Ends {
        Ends {
            status: self.status.subscribe(),
            description: self.description.subscribe(),
            addresses: self.addresses.subscribe(),
            torrents: self.torrents.holdings.torrents.subscribe(),
            wanted: self.torrents.holdings.wanted.subscribe(),
        }
    }

    /// Runs until the node is told to leave or all handles are gone. Gives who is to be told when it is over.
    pub(crate) async fn run(mut self) -> Option<oneshot::Sender<()>> {
        let mut tick = pin!(sleep(TICK));
        let left = loop {
            select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command.map(|command| self.on_command(command)) {
                    Some(ControlFlow::Continue(())) => {}
                    Some(ControlFlow::Break(left)) => break Some(left),
                    None => break None,
                },
                Ok(()) = self.offers.changed() => self.on_offers(),
                Ok(()) = self.torrents.own.changed() => self.on_own_files(),
                Some(described) = self.heard.recv() => self.on_described(described),
                Some((peer, sign)) = self.watching.signs.recv() => self.on_sign(peer, sign),
                Some(Ok(verdict)) = self.watching.verdicts.join_next() => self.on_verdict(&verdict),
                () = &mut tick => {
                    let now = Instant::now();
                    self.on_tick(now, tick.deadline().elapsed());
                    let is_quiet = now.duration_since(self.stirred) >= QUIET_AFTER;
                    let pause = if is_quiet { QUIET_TICK } else { TICK };
                    tick.as_mut().reset(tokio::time::Instant::now() + pause);
                }
            }
            self.publish_status();
        };
        self.leave().await;
        left
    }

    async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<(), NetError> {
        for address in addresses {
            let cannot = |message: String| NetError::Listen { address: address.to_string(), message };
            check_tcp_port(address).map_err(|error| cannot(error.to_string()))?;
            let listener = self.swarm.listen_on(address.clone()).map_err(|error| cannot(cause(error)))?;
            self.listeners.push(listener);
            timeout(LISTEN_WITHIN, self.listening(listener))
                .await
                .map_err(|_| cannot("no address became available".into()))?
                .map_err(cannot)?;
        }
        if addresses.iter().any(address::is_unspecified) {
            let _ = timeout(ADDRESSES_WITHIN, self.settle()).await;
        }
        Ok(())
    }

    /// Takes in what happens until it is dropped.
    async fn settle(&mut self) {
        loop {
            let event = self.swarm.select_next_some().await;
            self.on_event(event);
        }
    }

    /// Waits for a listener's first address.
    async fn listening(&mut self, wanted: ListenerId) -> Result<(), String> {
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::ListenerClosed { listener_id, reason, .. } if listener_id == wanted => {
                    return Err(reason.err().map_or_else(|| "closed".into(), |error| error.to_string()));
                }
                SwarmEvent::NewListenAddr { listener_id, .. } if listener_id == wanted => {
                    self.on_addresses();
                    return Ok(());
                }
                other => self.on_event(other),
            }
        }
    }

    fn on_command(&mut self, command: Command) -> ControlFlow<oneshot::Sender<()>> {
        match command {
            Command::Open(peer, request) => self.swarm.behaviour_mut().streams.open(peer, request),
            Command::OpenTorrent(peer, request) => {
                self.swarm.behaviour_mut().torrent_streams.open(peer, request);
            }
            Command::OpenWatch(peer, request) => {
                self.swarm.behaviour_mut().watch_streams.open(peer, request);
            }
            Command::Connect(peer, answer) => self.connect(peer, answer),
            Command::FindTorrent(info_hash, answer) => self.find_torrent(&info_hash, answer),
            // Whoever asked may have stopped waiting.
            Command::Forget { peer, by, answer } => drop(answer.send(self.forget(peer, by))),
            Command::Leave(answer) => return ControlFlow::Break(answer),
        }
        ControlFlow::Continue(())
    }

    /// The service offers something else.
    fn on_offers(&mut self) {
        let offers = self.offers.borrow_and_update().clone();
        let now = Instant::now();
        self.stirred = now;
        if self.announcer.offer(offers, now) == Reach::Everyone {
            self.publisher.changed(now);
        }
        self.tell(now);
    }

    fn on_tick(&mut self, now: Instant, late: Duration) {
        self.dial_in_turn(now, late);
        self.dial_lines(now);
        if let Some(client) = self.swarm.behaviour_mut().rendezvous_client.get() {
            self.registrations.tick(client, now);
        }
        let is_large = self.is_large();
        let missing = || self.membership.missing(is_large);
        let whole = self.membership.status().pipeline_complete;
        self.queries.tick(&mut self.swarm.behaviour_mut().kad, whole, missing, now);
        self.tell(now);
        self.tell_torrents(now);
        if now.duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.sweep(now);
        }
    }

    /// Tells peers and DHT what is due.
    fn tell(&mut self, now: Instant) {
        let (peers, dht) = (self.announcer.is_due(now), self.publisher.is_due(now));
        if !peers && !dht {
            return;
        }
        let (announcements, values): (Vec<_>, Vec<_>) =
            self.announcer.announcements(now_ms()).into_iter().unzip();
        if dht {
            let keys = announcements.iter().map(|told| self.keys.shard(told.shard_id));
            let records = keys.zip(values.iter().cloned()).collect();
            self.publisher.publish(&mut self.swarm.behaviour_mut().kad, records, now);
        }
        self.announcer.told(now);
        self.description.send_modify(|told| {
            let announcements = values.into_iter().map(Into::into).collect();
            *told = Arc::new(Description { announcements, ..Description::clone(told) });
        });
        log(self.membership.serve(announcements));
    }

    /// The node listens elsewhere now.
    fn on_addresses(&mut self) {
        let listening: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
        let told = address::to_tell(&self.external, &listening);
        let before: Vec<Multiaddr> = self.swarm.external_addresses().cloned().collect();
        for gone in before.iter().filter(|address| !told.contains(address)) {
            self.swarm.remove_external_address(gone);
        }
        for new in told.iter().filter(|address| !before.contains(address)) {
            self.swarm.add_external_address(new.clone());
        }
        let (now, texts) = (Instant::now(), told.iter().map(ToString::to_string).collect::<Vec<_>>());
        self.announcer.moved(texts.clone(), now);
        self.twins.moved(now);
        self.registrations.addresses_changed(now);
        if !self.offers.borrow().is_empty() {
            self.publisher.changed(now);
        }
        self.addresses.send_replace(texts);
    }

    fn publish_status(&self) {
        let now = self.membership.status();
        self.status.send_if_modified(|told| {
            let changed = !Arc::ptr_eq(told, now);
            if changed {
                *told = Arc::clone(now);
            }
            changed
        });
    }
}

fn swarm_of(
    transport: Boxed<(PeerId, StreamMuxerBox)>,
    behaviour: Behaviour,
    me: PeerId,
) -> Swarm<Behaviour> {
    Swarm::new(transport, behaviour, me, swarm::Config::with_tokio_executor().with_smart_dial())
}

fn tell_admission(admission: Admission) {
    match admission {
        Admission::Secret => {}
        Admission::Loopback => tracing::info!("no secret: nodes on this machine alone can take part"),
        Admission::Open => tracing::warn!(
            "OPEN SWARM: whoever reaches this node is a member, reads what passes through and can forge answers; \
             a secret (`llama-swarm secret new`, --secret-file) keeps strangers out"
        ),
    }
}

/// libp2p opens TCP ports so that several processes can share one, and connections would go to either.
fn check_tcp_port(address: &Multiaddr) -> io::Result<()> {
    match address::tcp_socket(address).filter(|socket| socket.port() != 0) {
        Some(socket) => TcpListener::bind(socket).map(drop),
        None => Ok(()),
    }
}

/// libp2p's own text leaves the system's error out.
fn cause(error: TransportError<io::Error>) -> String {
    match error {
        TransportError::Other(error) => error.to_string(),
        not_supported => not_supported.to_string(),
    }
}

fn log(news: impl IntoIterator<Item = News>) {
    news.into_iter().for_each(|news| news.log());
}

fn node_id(peer: &PeerId) -> NodeId {
    crate::peer::node_id(peer)
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
