//! `swarm.proto`: the swarm as a node sees it.

use std::collections::{BTreeMap, HashMap};

use swarm_types::{
    Capabilities, Fetching, Forgotten, LayerRange, MAX_ROUND_TRIPS, MAX_SHARDS, ModelId, NodeId, Replica,
    ReplicaState, ShardId, ShardStatus, SwarmStatus, Transport,
};

use crate::{WireError, parse, wire};

impl From<&SwarmStatus> for wire::SwarmStatus {
    fn from(status: &SwarmStatus) -> Self {
        Self {
            cluster: status.cluster.clone(),
            node: status.node.to_string(),
            total_shards: status.total_shards,
            discovered_shards: status.discovered_shards,
            pipeline_complete: status.pipeline_complete,
            swarm_ready: status.swarm_ready,
            shards: status.shards.iter().map(Into::into).collect(),
            model: status.model.as_ref().map(Into::into),
            revision: status.revision,
            admission: status.admission.to_string(),
        }
    }
}

impl From<&ShardStatus> for wire::ShardStatus {
    fn from(shard: &ShardStatus) -> Self {
        Self { shard_id: shard.shard_id.0, replicas: shard.replicas.iter().map(Into::into).collect() }
    }
}

impl From<&Replica> for wire::Replica {
    fn from(replica: &Replica) -> Self {
        let can = &replica.capabilities;
        Self {
            worker: replica.worker.to_string(),
            state: wire::ReplicaState::from(replica.state).into(),
            loaded_percent: can.loaded_percent.into(),
            local: replica.local,
            addresses: replica.addresses.clone(),
            transport: replica.transport.map_or("", Transport::name).into(),
            model: Some((&replica.model).into()),
            first_layer: can.layers.start(),
            end_layer: can.layers.end(),
            device: can.device.clone(),
            version: can.version.clone(),
            grpc_address: can.grpc_address.clone(),
            active_sessions: can.active_sessions,
            round_trips_us: can.round_trips_us.iter().map(|(node, us)| (node.to_string(), *us)).collect(),
            memory_bytes: can.memory_bytes,
            tokens_per_second: can.tokens_per_second,
            fetching: can
                .fetching
                .map(|Fetching { peers, bytes_per_second }| wire::Fetching { peers, bytes_per_second }),
            stalled: can.stalled,
            lost: replica.lost,
        }
    }
}

impl From<ReplicaState> for wire::ReplicaState {
    fn from(state: ReplicaState) -> Self {
        match state {
            ReplicaState::Loading => Self::Loading,
            ReplicaState::Loaded => Self::Loaded,
            ReplicaState::Suspect => Self::Suspect,
            ReplicaState::Offline => Self::Offline,
        }
    }
}

impl From<Forgotten> for wire::ForgetResponse {
    fn from(forgotten: Forgotten) -> Self {
        Self {
            worker: forgotten.worker.to_string(),
            nodes: forgotten.nodes,
            silent: forgotten.silent.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<wire::ForgetResponse> for Forgotten {
    type Error = WireError;

    fn try_from(wire: wire::ForgetResponse) -> Result<Self, WireError> {
        let silent = wire.silent.iter().map(|node| parse("silent", node)).collect::<Result<_, _>>()?;
        Ok(Self { worker: parse("worker", &wire.worker)?, nodes: wire.nodes, silent })
    }
}

impl From<&ModelId> for wire::ModelInfo {
    fn from(model: &ModelId) -> Self {
        Self {
            name: model.name.clone(),
            digest: model.digest.to_string(),
            precision: model.precision.to_string(),
        }
    }
}

impl TryFrom<wire::SwarmStatus> for SwarmStatus {
    type Error = WireError;

    /// The summary is made from the shards again, so that it is always true to them.
    fn try_from(wire: wire::SwarmStatus) -> Result<Self, WireError> {
        let node = parse("node", &wire.node)?;
        let admission = parse("admission", &wire.admission)?;
        if wire.shards.len() > MAX_SHARDS as usize {
            return Err(WireError::new("shards", format!("more than {MAX_SHARDS}")));
        }
        let mut shards = Vec::with_capacity(wire.shards.len());
        for (expected, shard) in (0..).zip(wire.shards) {
            if shard.shard_id != expected {
                return Err(WireError::new(
                    "shards",
                    format!("shard {} where {expected} belongs", shard.shard_id),
                ));
            }
            shards.push(shard.try_into()?);
        }
        Ok(Self::new(wire.cluster, node, admission, shards, wire.revision))
    }
}

impl TryFrom<wire::ShardStatus> for ShardStatus {
    type Error = WireError;

    fn try_from(wire: wire::ShardStatus) -> Result<Self, WireError> {
        let replicas = wire.replicas.into_iter().map(Replica::try_from).collect::<Result<_, _>>()?;
        Ok(Self { shard_id: ShardId(wire.shard_id), replicas })
    }
}

impl TryFrom<wire::Replica> for Replica {
    type Error = WireError;

    fn try_from(wire: wire::Replica) -> Result<Self, WireError> {
        let state = wire.state().try_into()?;
        let loaded_percent = u8::try_from(wire.loaded_percent).ok().filter(|percent| *percent <= 100);
        let capabilities = Capabilities {
            layers: LayerRange::new(wire.first_layer, wire.end_layer)
                .map_err(|error| WireError::new("first_layer", error))?,
            device: wire.device,
            memory_bytes: wire.memory_bytes,
            tokens_per_second: speed(wire.tokens_per_second)?,
            version: wire.version,
            grpc_address: wire.grpc_address,
            loaded_percent: loaded_percent.ok_or_else(|| WireError::new("loaded_percent", "above 100"))?,
            active_sessions: wire.active_sessions,
            round_trips_us: round_trips(wire.round_trips_us)?,
            fetching: wire.fetching.map(fetching).transpose()?,
            stalled: wire.stalled,
        };
        Ok(Self {
            worker: parse("worker", &wire.worker)?,
            state,
            lost: wire.lost,
            local: wire.local,
            addresses: wire.addresses,
            transport: transport(&wire.transport)?,
            model: wire.model.ok_or_else(|| WireError::new("model", "missing"))?.try_into()?,
            capabilities,
        })
    }
}

fn speed(tokens_per_second: f32) -> Result<f32, WireError> {
    if tokens_per_second.is_finite() && tokens_per_second >= 0.0 {
        Ok(tokens_per_second)
    } else {
        Err(WireError::new("tokens_per_second", "negative or no number"))
    }
}

fn fetching(wire: wire::Fetching) -> Result<Fetching, WireError> {
    let told = Fetching { peers: wire.peers, bytes_per_second: wire.bytes_per_second };
    match told.wrong_field() {
        Some(field) => Err(WireError::new(field, "larger than can be")),
        None => Ok(told),
    }
}

fn round_trips(wire: HashMap<String, u32>) -> Result<BTreeMap<NodeId, u32>, WireError> {
    if wire.len() > MAX_ROUND_TRIPS {
        return Err(WireError::new("round_trips_us", format!("more than {MAX_ROUND_TRIPS}")));
    }
    wire.into_iter().map(|(peer, us)| Ok((parse("round_trips_us", &peer)?, us))).collect()
}

fn transport(name: &str) -> Result<Option<Transport>, WireError> {
    if name.is_empty() { Ok(None) } else { parse("transport", name).map(Some) }
}

impl TryFrom<wire::ReplicaState> for ReplicaState {
    type Error = WireError;

    fn try_from(wire: wire::ReplicaState) -> Result<Self, WireError> {
        match wire {
            wire::ReplicaState::Unspecified => Err(WireError::new("state", "missing or unknown")),
            wire::ReplicaState::Loading => Ok(Self::Loading),
            wire::ReplicaState::Loaded => Ok(Self::Loaded),
            wire::ReplicaState::Suspect => Ok(Self::Suspect),
            wire::ReplicaState::Offline => Ok(Self::Offline),
        }
    }
}

impl TryFrom<wire::ModelInfo> for ModelId {
    type Error = WireError;

    fn try_from(wire: wire::ModelInfo) -> Result<Self, WireError> {
        Ok(Self {
            name: wire.name,
            digest: parse("digest", &wire.digest)?,
            precision: parse("precision", &wire.precision)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use prost::Message;
    use swarm_types::{Admission, ModelDigest, Precision, fixture};

    use super::*;

    fn status() -> SwarmStatus {
        let capabilities = Capabilities {
            active_sessions: 2,
            round_trips_us: [("12D3KooWb".parse().expect("valid"), 210)].into(),
            ..fixture::capabilities()
        };
        let replica = Replica {
            addresses: vec!["/ip4/127.0.0.1/udp/4001/quic-v1".into()],
            capabilities,
            ..fixture::replica("12D3KooWa", ReplicaState::Loaded)
        };
        fixture::status(vec![vec![replica], vec![]])
    }

    #[test]
    fn a_status_is_read_back_as_sent() {
        assert_eq!(SwarmStatus::try_from(wire::SwarmStatus::from(&status())), Ok(status()));
    }

    #[test]
    fn a_status_that_cannot_be_is_refused_by_field() {
        let field = |change: fn(&mut wire::SwarmStatus)| {
            let mut wrong = wire::SwarmStatus::from(&status());
            change(&mut wrong);
            SwarmStatus::try_from(wrong).expect_err("refused").field
        };
        assert_eq!(field(|s| s.node = "no id".into()), "node");
        assert_eq!(field(|s| s.shards.swap(0, 1)), "shards");
        assert_eq!(field(|s| s.shards[0].replicas[0].loaded_percent = 101), "loaded_percent");
        assert_eq!(field(|s| s.shards[0].replicas[0].state = 0), "state");
        assert_eq!(field(|s| s.shards[0].replicas[0].model = None), "model");
        assert_eq!(field(|s| s.shards[0].replicas[0].transport = "pigeon".into()), "transport");
        assert_eq!(field(|s| s.shards[0].replicas[0].first_layer = 5), "first_layer");
        assert_eq!(field(|s| s.shards[0].replicas[0].tokens_per_second = f32::NAN), "tokens_per_second");
        let many = wire::Fetching { peers: u32::MAX, bytes_per_second: 0 };
        let mut wrong = wire::SwarmStatus::from(&status());
        wrong.shards[0].replicas[0].fetching = Some(many);
        assert_eq!(SwarmStatus::try_from(wrong).expect_err("refused").field, "fetching.peers");
    }

    fn replica(text: &str, number: u32) -> Replica {
        let states =
            [ReplicaState::Loading, ReplicaState::Loaded, ReplicaState::Suspect, ReplicaState::Offline];
        let (first, more) = (number >> 8, number & 3);
        let capabilities = Capabilities {
            layers: LayerRange::new(first, first + more).expect("not reversed"),
            device: text.into(),
            loaded_percent: (number % 101) as u8,
            active_sessions: number,
            fetching: (more == 1).then(|| Fetching { peers: more, bytes_per_second: number.into() }),
            stalled: more == 2,
            ..fixture::capabilities()
        };
        Replica {
            lost: number.is_multiple_of(5),
            local: number.is_multiple_of(2),
            addresses: vec![text.to_owned(); more as usize],
            transport: [None, Some(Transport::Quic), Some(Transport::Tcp)][number as usize % 3],
            model: ModelId::new(text, ModelDigest([number as u8; 32]), Precision::Exact),
            capabilities,
            ..fixture::replica("12D3KooWa", states[number as usize % 3])
        }
    }

    proptest! {
        #[test]
        fn every_status_is_read_back_as_sent(
            cluster in ".{0,20}",
            shards in vec(vec((".{0,20}", any::<u32>()), 0..3), 0..6),
            revision in any::<u64>(),
        ) {
            let shard = |(id, replicas): (u32, Vec<(String, u32)>)| ShardStatus {
                shard_id: ShardId(id),
                replicas: replicas.iter().map(|(text, number)| replica(text, *number)).collect(),
            };
            let shards = (0..).zip(shards).map(shard).collect();
            let node = "12D3KooWb".parse().expect("valid");
            let status = SwarmStatus::new(cluster, node, Admission::Open, shards, revision);
            prop_assert_eq!(SwarmStatus::try_from(wire::SwarmStatus::from(&status)), Ok(status));
        }

        #[test]
        fn a_damaged_status_is_refused_or_converted_but_never_panics(
            bytes in vec(any::<u8>(), 0..256),
            at in any::<usize>(),
            to in any::<u8>(),
        ) {
            let mut damaged = wire::SwarmStatus::from(&status()).encode_to_vec();
            let at = at % damaged.len();
            damaged[at] = to;
            for bytes in [bytes, damaged] {
                if let Ok(status) = wire::SwarmStatus::decode(bytes.as_slice()) {
                    let _ = SwarmStatus::try_from(status);
                }
            }
        }
    }
}
