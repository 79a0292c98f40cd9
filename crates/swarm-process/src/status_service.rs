//! `SwarmService`: what this node knows of the swarm, over gRPC, and what operators ask of it.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, future::BoxFuture};
use swarm_proto::wire::{
    self,
    swarm_service_server::{SwarmService, SwarmServiceServer},
};
use swarm_types::{ForgetError, Forgotten, SwarmStatus};
use tokio::sync::{Mutex, watch};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

/// The service's name, for health and reflection.
pub const NAME: &str = "swarm.v1.SwarmService";

/// Takes a lost worker out of service that is called so.
type Forget = Box<dyn Fn(String) -> BoxFuture<'static, Result<Forgotten, ForgetError>> + Send + Sync>;

/// Answers from the node's own view; only `Forget` asks the network.
pub struct SwarmStatusService {
    status: watch::Receiver<Arc<SwarmStatus>>,
    /// One at a time: each is asked of all nodes.
    forget: Mutex<Forget>,
}

impl SwarmStatusService {
    /// The service, ready to be added to a server. `forget` takes a lost worker out of service in the whole swarm.
    #[must_use]
    pub fn server(
        status: watch::Receiver<Arc<SwarmStatus>>,
        forget: impl Fn(String) -> BoxFuture<'static, Result<Forgotten, ForgetError>> + Send + Sync + 'static,
    ) -> SwarmServiceServer<Self> {
        SwarmServiceServer::new(Self { status, forget: Mutex::new(Box::new(forget)) })
    }
}

fn refused(error: &ForgetError) -> Status {
    let message = error.to_string();
    match error {
        ForgetError::NoName | ForgetError::Ambiguous { .. } => Status::invalid_argument(message),
        ForgetError::Present(_) | ForgetError::HasLeft(_) => Status::failed_precondition(message),
        ForgetError::Unknown(_) => Status::not_found(message),
        ForgetError::Left => Status::unavailable(message),
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

    async fn forget(
        &self,
        request: Request<wire::ForgetRequest>,
    ) -> Result<Response<wire::ForgetResponse>, Status> {
        let forget = self.forget.lock().await;
        let forgotten = forget(request.into_inner().node).await.map_err(|error| refused(&error))?;
        Ok(Response::new(forgotten.into()))
    }
}
