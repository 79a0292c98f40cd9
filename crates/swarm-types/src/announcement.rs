//! What a worker says of one shard it serves: the JSON in the DHT and in `PeerService.Describe`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Fetching, LayerRange, LayersError, ModelDigest, ModelId, NodeId, Precision, ShardId, id::MAX_TEXT,
    layers::MAX_SHARDS, visible::is_visible,
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
    /// A text with characters that terminals obey instead of showing them.
    #[error("announcement field {0} has control characters, or such that turn the order of writing around")]
    Hidden(&'static str),
    /// A number that cannot be.
    #[error("announcement field {0} is out of range")]
    OutOfRange(&'static str),
}

/// A worker serves a shard. A worker that serves several makes one announcement for each.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(from = "Json", into = "Json")]
pub struct Announcement {
    /// Who serves it.
    pub peer_id: NodeId,
    /// Which shard.
    pub shard_id: ShardId,
    /// Whether its weights are in memory.
    pub shard_loaded: bool,
    /// Multiaddresses where the worker listens.
    pub addresses: Vec<String>,
    /// Into how many shards the worker takes the model to be cut.
    pub total_shards: u32,
    /// What it serves a shard of.
    pub model: ModelId,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Grows with every announcement of this worker, also over its restarts; the larger wins.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch after which the announcement is stale.
    pub expires_at_ms: u64,
}

/// What a worker can do with a shard. A field more here is a field more in the announcement and in `/v1/swarm`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Capabilities {
    /// Layers of this shard.
    pub layers: LayerRange,
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
    /// While the shard's part of the model comes from other nodes: how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetching: Option<Fetching>,
    /// The shard is loaded, and its engine does not come back from what it computes: the replica is suspect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
}

/// An announcement as JSON, where the model and the cut are told among the capabilities.
#[derive(Serialize, Deserialize)]
struct Json {
    peer_id: NodeId,
    shard_id: ShardId,
    shard_loaded: bool,
    addresses: Vec<String>,
    capabilities: JsonCapabilities,
    sequence: u64,
    expires_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct JsonCapabilities {
    total_shards: u32,
    #[serde(flatten, with = "JsonModel")]
    model: ModelId,
    #[serde(flatten)]
    other: Capabilities,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ModelId")]
struct JsonModel {
    #[serde(rename = "model_digest")]
    digest: ModelDigest,
    #[serde(rename = "model_name")]
    name: String,
    precision: Precision,
}

impl From<Announcement> for Json {
    fn from(told: Announcement) -> Self {
        Self {
            peer_id: told.peer_id,
            shard_id: told.shard_id,
            shard_loaded: told.shard_loaded,
            addresses: told.addresses,
            capabilities: JsonCapabilities {
                total_shards: told.total_shards,
                model: told.model,
                other: told.capabilities,
            },
            sequence: told.sequence,
            expires_at_ms: told.expires_at_ms,
        }
    }
}

impl From<Json> for Announcement {
    fn from(json: Json) -> Self {
        Self {
            peer_id: json.peer_id,
            shard_id: json.shard_id,
            shard_loaded: json.shard_loaded,
            addresses: json.addresses,
            total_shards: json.capabilities.total_shards,
            model: json.capabilities.model,
            capabilities: json.capabilities.other,
            sequence: json.sequence,
            expires_at_ms: json.expires_at_ms,
        }
    }
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

    /// Whether the worker has begun to leave: what loads is never told as whole before it is loaded.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        !self.shard_loaded && self.capabilities.loaded_percent == 100
    }

    fn check(&self) -> Result<(), AnnouncementError> {
        let (capabilities, total_shards) = (&self.capabilities, self.total_shards);
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
        if let Some(field) = capabilities.fetching.as_ref().and_then(Fetching::wrong_field) {
            return Err(AnnouncementError::OutOfRange(field));
        }
        if capabilities.round_trips_us.len() > MAX_ROUND_TRIPS {
            return Err(AnnouncementError::TooLong("round_trips_us"));
        }
        if self.addresses.len() > MAX_ADDRESSES {
            return Err(AnnouncementError::TooLong("addresses"));
        }
        self.texts().try_for_each(|(field, text)| check_text(field, text))
    }

    /// What a worker may write as it likes, by field.
    fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let capabilities = &self.capabilities;
        let texts = [
            ("model_name", &self.model.name),
            ("device", &capabilities.device),
            ("version", &capabilities.version),
            ("grpc_address", &capabilities.grpc_address),
        ];
        let addresses = self.addresses.iter().map(|address| ("addresses", address));
        texts.into_iter().chain(addresses).map(|(field, text)| (field, text.as_str()))
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), AnnouncementError> {
    if text.len() > MAX_TEXT {
        return Err(AnnouncementError::TooLong(field));
    }
    if !is_visible(text) {
        return Err(AnnouncementError::Hidden(field));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::announcement;

    #[test]
    fn an_announcement_is_read_back_as_written() {
        let ours = announcement();
        assert_eq!(Announcement::from_json(&ours.to_json()), Ok(ours));
        let mut no_layers = announcement();
        no_layers.capabilities.layers = LayerRange::new(5, 5).expect("valid");
        assert_eq!(Announcement::from_json(&no_layers.to_json()), Ok(no_layers));
    }

    #[test]
    fn the_model_is_told_among_the_capabilities() {
        let json: serde_json::Value = serde_json::from_slice(&announcement().to_json()).expect("JSON");
        let told = &json["capabilities"];
        assert_eq!((&told["model_name"], &told["precision"]), (&"tiny".into(), &"exact".into()));
        assert_eq!(told["model_digest"].as_str().map(str::len), Some(64));
        assert_eq!((&told["total_shards"], &told["loaded_percent"]), (&8.into(), &100.into()));
        assert_eq!(json["model"], serde_json::Value::Null);
    }

    #[test]
    fn how_a_model_is_fetched_is_told_only_while_it_is() {
        let mut fetching = announcement();
        fetching.capabilities.fetching = Some(Fetching { peers: 3, bytes_per_second: 41_000_000 });
        let json = String::from_utf8(fetching.to_json()).expect("UTF-8");
        assert!(json.contains(r#""fetching":{"peers":3,"bytes_per_second":41000000}"#), "{json}");
        assert_eq!(Announcement::from_json(json.as_bytes()), Ok(fetching));
        assert!(!String::from_utf8(announcement().to_json()).expect("UTF-8").contains("fetching"));
    }

    #[test]
    fn an_older_workers_announcement_is_read() {
        let json = String::from_utf8(announcement().to_json()).expect("UTF-8");
        let older = json.replace("loaded_percent", "load_percent").replace(",\"round_trips_us\":{}", "");
        assert_ne!(older, json);
        assert_eq!(Announcement::from_json(older.as_bytes()), Ok(announcement()));
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
        assert_eq!(refusal(|a| a.total_shards = 0), LayersError::TotalShards(0).into());
        assert_eq!(
            refusal(|a| a.capabilities.loaded_percent = 101),
            AnnouncementError::OutOfRange("loaded_percent")
        );
        let fetching = Fetching { peers: 0, bytes_per_second: u64::MAX };
        let mut impossible = announcement();
        impossible.capabilities.fetching = Some(fetching);
        assert_eq!(
            Announcement::from_json(&impossible.to_json()),
            Err(AnnouncementError::OutOfRange("fetching.bytes_per_second"))
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

    #[test]
    fn texts_that_a_terminal_would_obey_are_refused_by_field() {
        type Field = fn(&mut Announcement) -> &mut String;
        let fields: [(&str, Field); 5] = [
            ("model_name", |a| &mut a.model.name),
            ("device", |a| &mut a.capabilities.device),
            ("version", |a| &mut a.capabilities.version),
            ("grpc_address", |a| &mut a.capabilities.grpc_address),
            ("addresses", |a| &mut a.addresses[0]),
        ];
        for (field, of) in fields {
            for hidden in ["\u{1b}[31m", "\r\n[STATUS] Swarm Ready", "\u{9b}2J", "\u{202e}", "\0"] {
                let mut wrong = announcement();
                of(&mut wrong).push_str(hidden);
                let refused = Announcement::from_json(&wrong.to_json());
                assert_eq!(refused, Err(AnnouncementError::Hidden(field)), "{hidden:?}");
            }
            let mut foreign = announcement();
            of(&mut foreign).push_str("größer 日本");
            assert_eq!(Announcement::from_json(&foreign.to_json()), Ok(foreign));
        }
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
