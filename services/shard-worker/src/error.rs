//! Why a worker cannot start or go on.

use std::{io, path::Path};

use gguf::GgufError;
use model_files::FilesError;
use shard_engine::{CutError, EngineError};
use swarm_net::NetError;
use swarm_process::telemetry::TelemetryError;
use swarm_types::LayersError;

/// A worker that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The model's file cannot be had.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The model's file cannot be read.
    #[error("model {path}: {source}")]
    Model {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: GgufError,
    },
    /// The shards do not exist.
    #[error("--shard-id, --total-shards or --shard-weights: {0}")]
    Shards(#[from] LayersError),
    /// The model is not computed where it was to be.
    #[error(transparent)]
    Device(CutError),
    /// There is too little memory for the shards.
    #[error(
        "the shards need {needed_mib} MiB (weights {weights_mib}, buffers {buffers_mib}), {available_mib} MiB of memory \
         are available: cut the model into more shards (--total-shards), give this machine less of it (--shard-id, or \
         --shard-weights on all nodes), take a smaller model file, or try it all the same with --ignore-memory"
    )]
    Memory {
        /// MiB of weights and buffers.
        needed_mib: u64,
        /// MiB of weights.
        weights_mib: u64,
        /// MiB of the largest batch.
        buffers_mib: u64,
        /// MiB that the machine and its limits leave.
        available_mib: u64,
    },
    /// The layers cannot be loaded.
    #[error(transparent)]
    Engine(#[from] EngineError),
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
    /// An internal error.
    #[error("the engine has stopped unexpectedly")]
    EngineStopped,
}

impl WorkerError {
    /// Why shards of the model at this path cannot be served.
    pub(crate) fn of_cut(path: &Path, error: CutError) -> Self {
        match error {
            CutError::Header(source) => Self::Model { path: path.display().to_string(), source },
            CutError::Layers(error) => error.into(),
            CutError::OnDevices(_) => Self::Device(error),
        }
    }
}
