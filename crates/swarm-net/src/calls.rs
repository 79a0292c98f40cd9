//! Between connected peers: byte streams, the gRPC channels over them, and the calls that every node answers.

pub(crate) mod bounds;
pub(crate) mod describe;
pub(crate) mod forget;
pub(crate) mod last;
pub(crate) mod links;
pub(crate) mod stream;
pub(crate) mod streams;
pub(crate) mod watch;
