//! The handle to a node.

mod forgetting;

use std::{collections::BTreeMap, io, sync::Arc, thread, time::Duration};

use libp2p::PeerId;
use prometheus_client::registry::Registry;
use swarm_types::{HeldTorrent, ModelDigest, NodeId, SwarmStatus, WantedSource};
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::Channel;

use crate::{
    DescribeServer, Descriptions, Identity, NetConfig, NetError, PeerListener, PeerStream, PeerTorrents,
    PeerWants, Role, RoundTrip, ShardOffer,
    calls::{
        describe::Description,
        links::Links,
        streams::{Intakes, Seat},
    },
    command::Command,
    config::Settings,
    metrics::Metrics,
    node::{Ends, Node, Setup},
    peer,
    peers::holdings::OwnFiles,
};

/// Requests from handles that wait for the node's loop.
const COMMANDS: usize = 256;
/// Streams that wait for the service. A burst of peers must fit: what does not is reset.
const INCOMING_STREAMS: usize = 1024;
/// Streams for torrents that wait for whoever shares them, who takes them at once and does the reading elsewhere.
const INCOMING_TORRENT_STREAMS: usize = 64;
/// The DHT ends a question before that, and gives what it knows by then.
const FIND_WITHIN: Duration = Duration::from_secs(6);
/// To reach a peer that is known and not connected at the moment.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Leaving is bounded in the loop as well.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// A node of the swarm. Cheap to clone; the node leaves the swarm when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct SwarmNet {
    id: NodeId,
    commands: mpsc::Sender<Command>,
    offers: Arc<watch::Sender<Vec<ShardOffer>>>,
    own_files: Arc<watch::Sender<OwnFiles>>,
    status: watch::Receiver<Arc<SwarmStatus>>,
    description: watch::Receiver<Arc<Description>>,
    addresses: watch::Receiver<Vec<String>>,
    torrents: watch::Receiver<Arc<PeerTorrents>>,
    wanted: watch::Receiver<Arc<PeerWants>>,
    torrent_seat: Seat,
    links: Links,
    metrics: Metrics,
    /// It was told whom to enter by.
    enters: bool,
    /// Of the thread that has the connections.
    network: Handle,
}

impl SwarmNet {
    /// Starts a node. Returns when it listens; entering the swarm goes on behind. The listener must be served,
    /// with [`Self::peer_service`] among its services, or peers learn nothing of this node.
    ///
    /// # Errors
    /// When a setting is wrong or an address cannot be listened on.
    pub async fn bind(
        config: NetConfig,
        role: Role,
        identity: Identity,
    ) -> Result<(Self, PeerListener), NetError> {
        Self::start(Settings::check(config, role)?, role, identity).await
    }

    /// Starts a node with checked settings.
    pub(crate) async fn start(
        settings: Settings,
        role: Role,
        identity: Identity,
    ) -> Result<(Self, PeerListener), NetError> {
        let (commands, command_queue) = mpsc::channel(COMMANDS);
        let intakes = Intakes::default();
        let torrent_seat = intakes.torrents.seat();
        let listener = intakes.grpc.seat().listen(INCOMING_STREAMS).expect("nobody else has the seat yet");
        let (offers, offered) = watch::channel(vec![]);
        let (own_files, told) = watch::channel(OwnFiles::default());
        let metrics = Metrics::default();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
        let network = runtime.handle().clone();
        let links = Links::new(commands.downgrade(), network.clone(), metrics.clone());
        let id = identity.id().clone();
        let enters = !settings.entries.is_empty();
        let setup = Setup {
            settings,
            role,
            identity,
            links: links.clone(),
            metrics: metrics.clone(),
            services: Handle::current(),
            commands: command_queue,
            offers: offered,
            own_files: told,
            intakes,
        };
        let Ends { status, description, addresses, torrents, wanted } = start(setup, runtime).await?;
        if !enters && role != Role::Rendezvous {
            tracing::info!(
                "no other node is named to enter the swarm by (--rendezvous): waits for others to call this one"
            );
        }
        let (offers, own_files) = (Arc::new(offers), Arc::new(own_files));
        let net = Self {
            id,
            commands,
            offers,
            own_files,
            status,
            description,
            addresses,
            torrents,
            wanted,
            torrent_seat,
            links,
            metrics,
            enters,
            network,
        };
        Ok((net, listener))
    }

    /// Who this node is.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Whether it was told nodes to enter the swarm by.
    #[must_use]
    pub fn enters(&self) -> bool {
        self.enters
    }

    /// Whether any other node is connected.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        self.links.any()
    }

    /// Multiaddresses, each with the peer id, that other nodes can be given to enter by.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.borrow().iter().map(|address| format!("{address}/p2p/{}", self.id)).collect()
    }

    /// Says which shards this node serves, and that it serves no others. Peers and DHT hear at once when that
    /// changes; if only the number of sessions changed, connected peers alone are told, and not more often than five
    /// times a second.
    pub fn announce(&self, shards: Vec<ShardOffer>) {
        self.offers.send_replace(shards);
    }

    /// The swarm as this node sees it, now and on every change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<SwarmStatus>> {
        self.status.clone()
    }

    /// The gRPC channel to a peer, inside a stream that is encrypted and authenticated by peer id. There is one
    /// for each peer; after its connection broke, ask for a new one.
    ///
    /// # Errors
    /// When the peer cannot be reached within a few seconds.
    pub async fn channel(&self, node: &NodeId) -> Result<Channel, NetError> {
        let peer = self.reach(node).await?;
        self.links.called(&peer);
        self.links.channel(peer).await
    }

    /// Says which torrents this node holds, and that it holds no others: at most 64 are told, and none with a name that
    /// is longer than 256 bytes or that terminals would obey. Peers and DHT hear at once when that changes; if only the
    /// number of pieces changed, connected peers alone are told, and not more often than every second.
    pub fn hold(&self, torrents: Vec<HeldTorrent>) {
        self.own_files.send_modify(|own| own.held = torrents);
    }

    /// Says from which sources this node wants a model's file, of which it has nothing yet, and that it wants no
    /// others: at most 16. Peers hear at once.
    pub fn want(&self, sources: Vec<WantedSource>) {
        self.own_files.send_modify(|own| own.wanted = sources);
    }

    /// What connected peers hold, as they say themselves, now and on every change. Who holds nothing is left out.
    #[must_use]
    pub fn torrents(&self) -> watch::Receiver<Arc<PeerTorrents>> {
        self.torrents.clone()
    }

    /// Which sources connected peers want, as they say themselves, now and on every change. Who wants nothing is left
    /// out.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<Arc<PeerWants>> {
        self.wanted.clone()
    }

    /// Asks the DHT which other nodes hold a torrent, and dials those that are not connected. They may be gone for a
    /// minute already. None within a few seconds also means that none was found in time.
    ///
    /// # Errors
    /// When the node has left.
    pub async fn find_torrent(&self, info_hash: &ModelDigest) -> Result<Vec<NodeId>, NetError> {
        let (answer, holders) = oneshot::channel();
        self.commands.send(Command::FindTorrent(*info_hash, answer)).await.map_err(|_| NetError::Left)?;
        let holders = timeout(FIND_WITHIN, holders).await.unwrap_or(Ok(vec![]));
        Ok(holders.map_err(|_| NetError::Left)?.iter().map(peer::node_id).collect())
    }

    /// A byte stream for torrents to a peer, which is reached first if it is known. A peer serves four of one node at
    /// the same time; what is more it closes, and all of them when it shares nothing.
    ///
    /// # Errors
    /// When the peer cannot be reached within a few seconds, or gives no stream.
    pub async fn open_torrent(&self, node: &NodeId) -> Result<PeerStream, NetError> {
        self.links.torrent_stream(self.reach(node).await?).await
    }

    /// The byte streams for torrents that peers open to this node, for the one who serves them: nothing when they were
    /// taken before, or the node has left. Until they are taken, and after the listener is dropped, such streams are
    /// closed as they come. Of those that nobody has read from the listener yet 64 wait, and more are closed.
    #[must_use]
    pub fn torrent_streams(&self) -> Option<PeerListener> {
        self.torrent_seat.listen(INCOMING_TORRENT_STREAMS)
    }

    /// How far the admitted peers are, those where that was measured.
    #[must_use]
    pub fn round_trips(&self) -> BTreeMap<NodeId, RoundTrip> {
        let measured = self.links.round_trips().into_iter();
        measured.map(|(peer, round_trip)| (peer::node_id(&peer), round_trip)).collect()
    }

    /// Runs a service for peers on the thread that has the connections: what it reads and writes is handed to no other
    /// thread. It must never block, nor compute for long: heartbeats wait behind it. Ends with the node.
    pub fn spawn<T: Send + 'static>(
        &self,
        service: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.network.spawn(service)
    }

    /// `PeerService`, by which peers learn what this node serves.
    #[must_use]
    pub fn peer_service(&self) -> DescribeServer {
        Descriptions::server(self.description.clone(), self.commands.downgrade())
    }

    /// Adds the node's counters.
    pub fn metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Leaves the swarm: peers see this node OFFLINE at once. Returns when they were told. To them a worker is lost
    /// that has not retired before.
    pub async fn leave(&self) {
        let (answer, left) = oneshot::channel();
        if self.commands.send(Command::Leave(answer)).await.is_ok() {
            // An error means that the loop has ended, which is what was asked for.
            let _ = timeout(LEAVE_WITHIN, left).await;
        }
    }

    /// A peer that is connected, or is now.
    async fn reach(&self, node: &NodeId) -> Result<PeerId, NetError> {
        let not_connected = || NetError::NotConnected(node.clone());
        let peer = peer::peer_id(node).ok_or_else(not_connected)?;
        if !self.links.contains(&peer) {
            let connected = timeout(CONNECT_WITHIN, self.connect(peer)).await;
            if !connected.map_err(|_| not_connected())?? {
                return Err(not_connected());
            }
        }
        Ok(peer)
    }

    async fn connect(&self, peer: PeerId) -> Result<bool, NetError> {
        let (answer, connected) = oneshot::channel();
        self.commands.send(Command::Connect(peer, answer)).await.map_err(|_| NetError::Left)?;
        connected.await.map_err(|_| NetError::Left)
    }
}

/// Runs the node's loop on a thread of its own, so that it answers while other threads compute.
async fn start(setup: Setup, runtime: Runtime) -> Result<Ends, NetError> {
    let (started, start) = oneshot::channel();
    let run = move || {
        let left = runtime.block_on(async {
            let (node, ends) = match Node::start(setup).await {
                Ok(node) => node,
                Err(error) => {
                    drop(started.send(Err(error)));
                    return None;
                }
            };
            if started.send(Ok(ends)).is_ok() { node.run().await } else { None }
        });
        // Closes the sockets, so that whoever waits for that can open them again.
        drop(runtime);
        if let Some(left) = left {
            // Whoever asked may have stopped waiting.
            let _ = left.send(());
        }
    };
    thread::Builder::new().name("swarm-net".into()).spawn(run).map_err(cannot_start)?;
    start.await.map_err(|_| NetError::Start("its thread ended".into()))?
}

fn cannot_start(error: io::Error) -> NetError {
    NetError::Start(error.to_string())
}
