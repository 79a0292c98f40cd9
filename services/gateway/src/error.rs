//! Why a gateway does not start or go on.

use std::{io, net::SocketAddr};

use model_files::FilesError;
use swarm_net::NetError;
use swarm_process::telemetry::TelemetryError;
use swarm_types::LayersError;

use crate::text::TextError;

/// A gateway that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The model's file cannot be had.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The model's file cannot be used.
    #[error("model {path}: {source}")]
    Model {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: TextError,
    },
    /// The model cannot be cut into so many shards.
    #[error("--total-shards or --shard-weights: {0}")]
    Cut(#[from] LayersError),
    /// The network does not start.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A port or file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A port is open beyond this machine, and nobody would be asked for a key.
    #[error(
        "{flag} {address}: whoever reaches this port would use the model, for no client needs a key: make keys \
         (llama-swarm key new NAME --file FILE) and give --api-keys-file FILE, or let everybody in by --open-gateway"
    )]
    Open {
        /// Which port.
        flag: &'static str,
        /// Where it would listen.
        address: SocketAddr,
    },
    /// Logs or traces that cannot be had as they were asked for.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The server for peers failed.
    #[error("gRPC server: {0}")]
    Grpc(#[from] tonic::transport::Error),
}
