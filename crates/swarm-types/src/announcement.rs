//! What a worker says of one shard it serves: the JSON in the DHT and in `PeerService.Describe`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    LayerRange, LayersError, ModelDigest, NodeId, Precision, ShardId, id::MAX_TEXT, layers::MAX_SHARDS,
};

/// A larger announcement is refused unread.
pub const MAX_ANNOUNCEMENT_BYTES: usize = 8 * 1024;
/// A worker does not need more ways to be reached than this.
const MAX_ADDRESSES: usize = 16;
/// As many replicas of the next shard are told how far they are.
pub const MAX_ROUND_TRIPS: usize = 16;

/// Why an announcement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// More bytes than allowed.
    #[error("announcement of {0} bytes is larger than {MAX_ANNOUNCEMENT_BYTES}")]
    TooLarge(usize),
    /// Not the JSON it should be.
    #[error("announcement is not valid JSON: {0}")]
    Json(String),
    /// A number outside its range.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// A list or text longer than allowed.
    #[error("announcement field {0} is too long")]
    TooLong(&'static str),
    /// A number that cannot be.
    #[error("announcement field {0} is out of range")]
    OutOfRange(&'static str),
}

/// A worker serves a shard. A worker that serves several makes one announcement for each.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// Who serves it.
    pub peer_id: NodeId,
    /// Which shard.
    pub shard_id: ShardId,
    /// Whether its weights are in memory.
    pub shard_loaded: bool,
    /// Multiaddresses where the worker listens.
    pub addresses: Vec<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Grows with every announcement of this worker, also over its restarts; the larger wins.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch after which the announcement is stale.
    pub expires_at_ms: u64,
}

/// What a worker can do.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Capabilities {
    /// Layers of this shard.
    pub layers: LayerRange,
    /// Into how many shards the worker takes the model to be cut.
    pub total_shards: u32,
    /// Which model file.
    pub model_digest: ModelDigest,
    /// Its name, for people.
    pub model_name: String,
    /// How it is computed.
    pub precision: Precision,
    /// For example `cpu`.
    pub device: String,
    /// Bytes of memory for weights and caches.
    pub memory_bytes: u64,
    /// Tokens per second of one session through this shard, measured after loading; 0 before.
    pub tokens_per_second: f32,
    /// Version of the software.
    pub version: String,
    /// `host:port` of the TCP gRPC service.
    pub grpc_address: String,
    /// How much of the shard is loaded, 0 to 100. Older workers call it `load_percent`.
    #[serde(alias = "load_percent")]
    pub loaded_percent: u8,
    /// Sessions open now.
    pub active_sessions: u32,
    /// Round-trip times to the nodes that get this worker's results, in microseconds: the workers of the next shard,
    /// or gateways if this is the last shard.
    #[serde(default)]
    pub round_trips_us: BTreeMap<NodeId, u32>,
}

impl Announcement {
    /// Reads and checks an announcement. Its signature is the network's business.
    ///
    /// # Errors
    /// Names what is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, AnnouncementError> {
        if json.len() > MAX_ANNOUNCEMENT_BYTES {
            return Err(AnnouncementError::TooLarge(json.len()));
        }
        let announcement: Self =
            serde_json::from_slice(json).map_err(|error| AnnouncementError::Json(error.to_string()))?;
        announcement.check()?;
        Ok(announcement)
    }

    /// The announcement as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an announcement has only text keys and finite numbers")
    }

    fn check(&self) -> Result<(), AnnouncementError> {
        let capabilities = &self.capabilities;
        let total_shards = capabilities.total_shards;
        if !(1..=MAX_SHARDS).contains(&total_shards) {
            return Err(LayersError::TotalShards(total_shards).into());
        }
        if self.shard_id.0 >= total_shards {
            return Err(LayersError::ShardOutOfRange { shard: self.shard_id.0, total_shards }.into());
        }
        if capabilities.loaded_percent > 100 {
            return Err(AnnouncementError::OutOfRange("loaded_percent"));
        }
        if !(capabilities.tokens_per_second.is_finite() && capabilities.tokens_per_second >= 0.0) {
            return Err(AnnouncementError::OutOfRange("tokens_per_second"));
        }
        if capabilities.round_trips_us.len() > MAX_ROUND_TRIPS {
            return Err(AnnouncementError::TooLong("round_trips_us"));
        }
        if self.addresses.len() > MAX_ADDRESSES {
            return Err(AnnouncementError::TooLong("addresses"));
        }
        let texts = [
            ("model_name", &capabilities.model_name),
            ("device", &capabilities.device),
            ("version", &capabilities.version),
            ("grpc_address", &capabilities.grpc_address),
        ];
        let addresses = self.addresses.iter().map(|address| ("addresses", address));
        match texts.into_iter().chain(addresses).find(|(_, text)| text.len() > MAX_TEXT) {
            Some((field, _)) => Err(AnnouncementError::TooLong(field)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            peer_id: "12D3KooWGzBvZVkz".parse().expect("valid"),
            shard_id: ShardId(3),
            shard_loaded: true,
            addresses: vec!["/ip4/127.0.0.1/udp/4001/quic-v1".into()],
            capabilities: Capabilities {
                layers: LayerRange::new(12, 16).expect("valid"),
                total_shards: 8,
                model_digest: ModelDigest([7; 32]),
                model_name: "tiny".into(),
                precision: Precision::Exact,
                device: "cpu".into(),
                memory_bytes: 1 << 30,
                tokens_per_second: 12.5,
                version: "0.1.0".into(),
                grpc_address: "127.0.0.1:50051".into(),
                loaded_percent: 100,
                active_sessions: 0,
                round_trips_us: BTreeMap::new(),
            },
            sequence: 4,
            expires_at_ms: 1_800_000_000_000,
        }
    }

    #[test]
    fn an_announcement_is_read_back_as_written() {
        let ours = announcement();
        assert_eq!(Announcement::from_json(&ours.to_json()), Ok(ours));
        let mut no_layers = announcement();
        no_layers.capabilities.layers = LayerRange::new(5, 5).expect("valid");
        assert_eq!(Announcement::from_json(&no_layers.to_json()), Ok(no_layers));
    }

    #[test]
    fn wrong_announcements_are_refused_by_cause() {
        let refusal = |change: fn(&mut Announcement)| {
            let mut wrong = announcement();
            change(&mut wrong);
            Announcement::from_json(&wrong.to_json()).expect_err("refused")
        };
        let out_of_range = LayersError::ShardOutOfRange { shard: 8, total_shards: 8 };
        assert_eq!(refusal(|a| a.shard_id = ShardId(8)), out_of_range.into());
        assert_eq!(refusal(|a| a.capabilities.total_shards = 0), LayersError::TotalShards(0).into());
        assert_eq!(
            refusal(|a| a.capabilities.loaded_percent = 101),
            AnnouncementError::OutOfRange("loaded_percent")
        );
        let tokens_per_second = AnnouncementError::OutOfRange("tokens_per_second");
        assert_eq!(refusal(|a| a.capabilities.tokens_per_second = -1.0), tokens_per_second);
        assert_eq!(
            refusal(|a| a.addresses = vec![String::new(); 17]),
            AnnouncementError::TooLong("addresses")
        );
        assert_eq!(
            refusal(|a| a.capabilities.device = "x".repeat(257)),
            AnnouncementError::TooLong("device")
        );
        assert_eq!(Announcement::from_json(&vec![b' '; 1 << 20]), Err(AnnouncementError::TooLarge(1 << 20)));
        assert!(matches!(Announcement::from_json(b"not json"), Err(AnnouncementError::Json(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Announcement::from_json(&bytes);
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0..300usize, to in any::<u8>()) {
            let mut json = announcement().to_json();
            let at = at % json.len();
            json[at] = to;
            let _ = Announcement::from_json(&json);
        }
    }
}
