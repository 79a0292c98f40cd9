//! Where a flood goes.

use swarm_tests::{Process, Swarm};

/// A port of one of the swarm's processes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Port {
    GatewayHttp,
    GatewayGrpc,
    WorkerGrpc,
    RendezvousGrpc,
}

impl Port {
    pub(crate) fn process(self, swarm: &Swarm) -> &Process {
        match self {
            Self::GatewayHttp | Self::GatewayGrpc => &swarm.gateway,
            Self::WorkerGrpc => &swarm.workers[0],
            Self::RendezvousGrpc => &swarm.rendezvous,
        }
    }

    pub(crate) fn url(self, swarm: &Swarm) -> String {
        match self {
            Self::GatewayHttp => swarm.gateway.http_url(),
            _ => self.process(swarm).grpc_url(),
        }
    }
}
