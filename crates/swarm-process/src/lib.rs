//! The edges of every process, the same for all services: logs and traces, trace propagation, TCP listeners, what
//! clients share of them, the gRPC port with health and reflection, the swarm's status over gRPC, metrics, the address
//! file, flags that several have, files that are read again when they change, memory and descriptors, what a
//! terminal can show, and the end, by signal or by an error.
//!
//! Knows nothing of peers, weights or text.

pub mod address_file;
pub mod bodies;
pub mod descriptors;
pub mod exit;
pub mod flags;
pub mod grpc;
pub mod listener;
pub mod machine;
mod memory;
pub mod metrics;
pub mod reread;
pub mod shares;
pub mod shutdown;
pub mod status_service;
pub mod telemetry;
pub mod terminal;
pub mod trace;
