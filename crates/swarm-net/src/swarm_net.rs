//! The handle to a node.

use std::{collections::BTreeMap, io, sync::Arc, thread, time::Duration};

use libp2p::PeerId;
use prometheus_client::registry::Registry;
use swarm_types::{NodeId, SwarmStatus};
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::Channel;

use crate::{
    DescribeServer, Descriptions, Identity, NetConfig, NetError, PeerListener, Role, RoundTrip, ShardOffer,
    calls::{describe::Description, links::Links},
    command::Command,
    config::Settings,
    metrics::Metrics,
    node::{Ends, Node, Setup},
    peer,
};

/// Requests from handles that wait for the node's loop.
const COMMANDS: usize = 256;
/// Streams that wait for the service. A burst of peers must fit: what does not is reset.
const INCOMING_STREAMS: usize = 1024;
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
    status: watch::Receiver<Arc<SwarmStatus>>,
    description: watch::Receiver<Arc<Description>>,
    addresses: watch::Receiver<Vec<String>>,
    links: Links,
    metrics: Metrics,
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
        let (stream_queue, streams) = mpsc::channel(INCOMING_STREAMS);
        let (offers, offered) = watch::channel(vec![]);
        let metrics = Metrics::default();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
        let network = runtime.handle().clone();
        let links = Links::new(commands.downgrade(), network.clone(), metrics.clone());
        let id = identity.id().clone();
        let setup = Setup {
            settings,
            role,
            identity,
            links: links.clone(),
            metrics: metrics.clone(),
            services: Handle::current(),
            commands: command_queue,
            offers: offered,
            streams: stream_queue,
        };
        let Ends { status, description, addresses } = start(setup, runtime).await?;
        let offers = Arc::new(offers);
        let net = Self { id, commands, offers, status, description, addresses, links, metrics, network };
        Ok((net, PeerListener::new(streams)))
    }

    /// Who this node is.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
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
        let not_connected = || NetError::NotConnected(node.clone());
        let peer = peer::peer_id(node).ok_or_else(not_connected)?;
        if !self.links.contains(&peer) {
            let connected = timeout(CONNECT_WITHIN, self.connect(peer)).await;
            if !connected.map_err(|_| not_connected())?? {
                return Err(not_connected());
            }
        }
        self.links.channel(peer).await
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
        Descriptions::server(self.description.clone())
    }

    /// Adds the node's counters.
    pub fn metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Leaves the swarm: peers see this node OFFLINE at once. Returns when they were told.
    pub async fn leave(&self) {
        let (answer, left) = oneshot::channel();
        if self.commands.send(Command::Leave(answer)).await.is_ok() {
            // An error means that the loop has ended, which is what was asked for.
            let _ = timeout(LEAVE_WITHIN, left).await;
        }
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
