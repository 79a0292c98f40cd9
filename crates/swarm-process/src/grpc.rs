//! The TCP gRPC port that people and Kubernetes use: health, reflection and the service's public methods.

use std::{io, net::SocketAddr, time::Duration};

use swarm_proto::DESCRIPTORS;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::server::HealthReporter;

/// A dead client is noticed within this and the timeout below.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// More calls at once on one connection wait.
const MAX_STREAMS: u32 = 256;
/// Watchers never end by themselves; after this they are cut off.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// A TCP gRPC port that is open but not served yet.
#[derive(Debug)]
pub struct PublicServer {
    listener: TcpListener,
    address: SocketAddr,
    health: HealthReporter,
}

/// What `grpc.health.v1` answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Whether a service can take calls; `""` is the process itself.
    pub async fn set(&self, service: &'static str, serving: bool) {
        use tonic_health::ServingStatus::{NotServing, Serving};
        self.0.set_service_status(service, if serving { Serving } else { NotServing }).await;
    }
}

impl PublicServer {
    /// Opens the port; 0 takes a free one.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot open the gRPC port {address} (--grpc-listen): {error}"),
            )
        })?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, health: HealthReporter::new() })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The handle that sets what health checks answer.
    #[must_use]
    pub fn health(&self) -> Health {
        Health(self.health.clone())
    }

    /// Serves `routes`, health and reflection (v1 and v1alpha) until `shutdown`. `services` are the full names that
    /// reflection lists: only those that this port really serves.
    ///
    /// # Errors
    /// When the server fails.
    ///
    /// # Panics
    /// Never: the compiled-in descriptors are valid.
    pub async fn serve(
        self,
        services: &[&str],
        routes: Routes,
        shutdown: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let reflection = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name("grpc.health.v1.Health");
            services.iter().fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let descriptors = "the compiled-in descriptors are valid";
        let routes = routes
            .add_service(tonic_health::pb::health_server::HealthServer::new(
                tonic_health::server::HealthService::from_health_reporter(self.health),
            ))
            .add_service(reflection().build_v1().expect(descriptors))
            .add_service(reflection().build_v1alpha().expect(descriptors));
        let server = Server::builder()
            // For routes that are not gRPC, as `/metrics`.
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(MAX_STREAMS)
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(self.listener).with_nodelay(Some(true)),
                shutdown.clone().cancelled_owned(),
            );
        let cut_off = async {
            shutdown.cancelled().await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        tokio::select! {
            ended = server => ended,
            () = cut_off => Ok(()),
        }
    }
}
