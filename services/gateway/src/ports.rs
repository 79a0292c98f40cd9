//! A gateway's TCP ports: opened together, so that what is wrong is told at the start, and served together.

use std::{io, net::SocketAddr};

use axum::Router;
use futures::future::BoxFuture;
use swarm_process::{
    bodies::BodyBounds,
    grpc::{Health, PublicServer},
    listener::{Bounds, Listener},
    metrics::Registry,
    status_service,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    Config,
    access::Access,
    clients::{Hosts, Keys, Origin},
    http::Front,
    inference_service,
};

/// What reflection lists.
const SERVICES: [&str; 2] = [inference_service::NAME, status_service::NAME];

/// A gateway's ports, open but not served yet.
pub(crate) struct Ports {
    http: Listener,
    grpc: PublicServer,
    metrics: Option<Listener>,
    /// Of the HTTP port.
    scheme: &'static str,
    access: Access,
    origins: Vec<Origin>,
}

impl Ports {
    /// Opens the ports, for those who have one of `keys`, or for all.
    ///
    /// # Errors
    /// Names the flag of the port that cannot be opened.
    pub(crate) async fn bind(config: &Config, keys: Option<Keys>) -> io::Result<Self> {
        let clients = &config.clients;
        let metrics = match clients.metrics_listen {
            Some(address) => {
                Some(Listener::bind(address, "metrics", "--metrics-listen", Bounds::default()).await?)
            }
            None => None,
        };
        let (for_http, for_grpc) = (config.tls.open().await?, config.tls.open_mutual().await?);
        let scheme = if for_http.is_some() { "https" } else { "http" };
        let bounds = Bounds::default().beside(config.generations.at_once());
        let http = Listener::bind(config.http_listen, "HTTP", "--http-listen", bounds).await?;
        let grpc = PublicServer::bind_within(config.grpc_listen, bounds, BodyBounds::default()).await?;
        let grpc = grpc.with_messages_of(inference_service::NAME, inference_service::MAX_MESSAGE_BYTES);
        Ok(Self {
            http: http.secured(for_http),
            grpc: grpc.secured(for_grpc),
            metrics,
            scheme,
            access: Access::new(keys, Hosts::new(clients.allowed_host.clone())),
            origins: clients.cors_origin.clone(),
        })
    }

    pub(crate) fn http_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    pub(crate) fn grpc_addr(&self) -> SocketAddr {
        self.grpc.local_addr()
    }

    pub(crate) fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Listener::local_addr)
    }

    pub(crate) fn health(&self) -> Health {
        self.grpc.health()
    }

    /// What the HTTP port answers. Where metrics have a port of their own, they are on no other.
    pub(crate) fn front(&self, registry: &Registry) -> Front {
        let Self { scheme, access, origins, .. } = self;
        Front::new(registry, scheme, access.clone(), origins.clone(), self.with_metrics(registry))
    }

    fn with_metrics(&self, registry: &Registry) -> Router {
        if self.metrics.is_some() { Router::new() } else { registry.routes() }
    }

    /// One server for each port; each ends soon after `stop`.
    pub(crate) fn serve(
        self,
        front: &Front,
        services: impl FnOnce(Routes) -> Routes,
        registry: &Registry,
        stop: &CancellationToken,
    ) -> Vec<BoxFuture<'static, ()>> {
        let services = services(Routes::from(self.with_metrics(registry)));
        let Self { http, grpc, metrics, access, .. } = self;
        let http = http.serve(front.routes(), stop.clone());
        let grpc_stop = stop.clone();
        let grpc = async move {
            grpc.serve_guarded(&SERVICES, services, |routes| access.guard(routes), grpc_stop).await;
        };
        let mut servers: Vec<BoxFuture<'static, ()>> = vec![Box::pin(http), Box::pin(grpc)];
        if let Some(metrics) = metrics {
            servers.push(Box::pin(metrics.serve(registry.routes(), stop.clone())));
        }
        servers
    }
}
