//! `SwarmService`: what this node knows of the swarm, over gRPC.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use swarm_proto::wire::{
    self,
    swarm_service_server::{SwarmService, SwarmServiceServer},
};
use swarm_types::SwarmStatus;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

/// The service's name, for health and reflection.
pub const NAME: &str = "swarm.v1.SwarmService";

/// Answers from the node's own view; never asks the network.
#[derive(Clone, Debug)]
pub struct SwarmStatusService {
    status: watch::Receiver<Arc<SwarmStatus>>,
}

impl SwarmStatusService {
    /// The service, ready to be added to a server.
    #[must_use]
    pub fn server(status: watch::Receiver<Arc<SwarmStatus>>) -> SwarmServiceServer<Self> {
        SwarmServiceServer::new(Self { status })
    }
}

#[tonic::async_trait]
impl SwarmService for SwarmStatusService {
    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<wire::SwarmStatus, Status>> + Send>>;

    async fn get_status(
        &self,
        _: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::SwarmStatus>, Status> {
        Ok(Response::new(self.status.borrow().as_ref().into()))
    }

    async fn watch_status(
        &self,
        _: Request<wire::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let changes = WatchStream::new(self.status.clone()).map(|status| Ok(status.as_ref().into()));
        Ok(Response::new(changes.boxed()))
    }
}
