//! The service: opens its ports, is there until it is told to end.

use std::{io, net::SocketAddr};

use swarm_net::{NetError, PeerListener, Role, SwarmNet, peer_server};
use swarm_process::{
    address_file::Addresses,
    descriptors,
    grpc::PublicServer,
    metrics::Registry,
    status_service::{self, SwarmStatusService},
    telemetry::{self, TelemetryError},
};
use swarm_types::NodeId;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::Config;

/// A rendezvous node that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RendezvousError {
    /// The network does not start or go on.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A port or file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Logs or traces that cannot be had as they were asked for.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The server for peers failed.
    #[error("gRPC server: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// Runs a rendezvous node until `shutdown`, with logs and traces: what its process does between flags and exit code.
///
/// # Errors
/// What keeps it from starting or going on.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), RendezvousError> {
    let telemetry = telemetry::init("rendezvous", &config.telemetry)?;
    descriptors::raise_limit();
    let rendezvous = Rendezvous::bind(config).await?;
    telemetry.identify(rendezvous.id());
    rendezvous.run(shutdown).await
}

/// A rendezvous node whose ports are open.
pub struct Rendezvous {
    net: SwarmNet,
    peers: PeerListener,
    public: PublicServer,
}

impl Rendezvous {
    /// Opens the ports.
    ///
    /// # Errors
    /// Says which port or file is the trouble.
    pub async fn bind(config: Config) -> Result<Self, RendezvousError> {
        let public = PublicServer::bind(config.grpc_listen).await?.secured(config.tls.open_mutual().await?);
        let identity = config.net.load_identity("rendezvous")?;
        let (net, peers) = SwarmNet::bind(config.net, Role::Rendezvous, identity).await?;
        config.address_file.tell(|| Addresses {
            peer_id: net.id().clone(),
            addresses: net.addresses(),
            grpc: public.local_addr(),
            http: None,
            metrics: None,
        })?;
        tracing::info!(peer = %net.id(), grpc = %public.local_addr(), "rendezvous started");
        for address in net.addresses() {
            tracing::info!("enter the swarm with --rendezvous {address}, or by llama-swarm invite");
        }
        Ok(Self { net, peers, public })
    }

    /// The node's peer id.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        self.net.id()
    }

    /// Multiaddresses to enter the swarm by.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.net.addresses()
    }

    /// Its TCP gRPC port.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// Is there for newcomers until `shutdown`, then leaves.
    ///
    /// # Errors
    /// When a server fails or the network stops.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), RendezvousError> {
        let Self { net, peers, public } = self;
        let registry = Registry::of(&net.status().borrow().cluster);
        registry.register(|registry| net.metrics(registry));
        registry.show_swarm(net.status());
        let status = SwarmStatusService::server(net.status(), net.forgetting());
        let routes = Routes::from(registry.routes()).add_service(status);
        public.health().set(status_service::NAME, true).await;
        let stop = CancellationToken::new();
        let mut public = std::pin::pin!(public.serve(&[status_service::NAME], routes, stop.clone()));
        let peers = peer_server().add_service(net.peer_service()).serve_with_incoming(peers);
        tokio::select! {
            ended = peers => {
                ended?;
                Err(NetError::Stopped.into())
            }
            () = &mut public => Ok(()),
            () = shutdown => {
                net.leave().await;
                stop.cancel();
                public.await;
                Ok(())
            }
        }
    }
}
