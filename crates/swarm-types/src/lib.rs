//! The words of the swarm as types: ids, layers, routes, steps, announcements and status.
//!
//! No IO, no async, no wire formats (except the announcement's JSON, which is itself the vocabulary of the
//! DHT). A value that exists keeps its rules: a [`Route`] covers every shard, a [`ShardRange`] is not empty.

mod admission;
mod announcement;
mod byte_size;
mod cut;
mod fetching;
#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
mod forgotten;
mod grammar;
mod id;
mod layers;
mod route;
mod sampling;
mod signed_text;
mod source;
mod status;
pub mod status_words;
mod step;
mod torrent;
mod transport;
pub mod visible;

pub use admission::{Admission, UnknownAdmission};
pub use announcement::{
    Announcement, AnnouncementError, Capabilities, MAX_ANNOUNCEMENT_BYTES, MAX_ROUND_TRIPS,
};
pub use byte_size::ByteSize;
pub use cut::{Cut, CutCosts, ShardWeights};
pub use fetching::Fetching;
pub use forgotten::{ForgetError, Forgotten};
pub use grammar::{Grammar, GrammarTooLong, MAX_GRAMMAR_BYTES};
pub use id::{Attempt, IdError, ModelDigest, ModelId, NodeId, Precision, SessionId, TokenId};
pub use layers::{LayerRange, LayersError, MAX_LAYERS, MAX_SHARDS, ShardId, ShardRange};
pub use route::{Hop, Route, RouteError};
pub use sampling::{MAX_END_TOKENS, MAX_LOGIT_BIAS, MAX_TOP_LOGPROBS, SamplingError, SamplingParams};
pub use signed_text::SignedText;
pub use source::{MAX_SOURCE, MAX_WANTED_SOURCES, Source, SourceError, WantedSource};
pub use status::{Replica, ReplicaState, ShardStatus, SwarmStatus};
pub use step::{HopTiming, SampledToken, Step, StepInput, StepKind, StepOutput, TargetScore, TokenLogprob};
pub use torrent::{HeldTorrent, MAX_HELD_TORRENTS, TorrentError};
pub use transport::{Transport, UnknownTransport};

/// Version of the protocol between workers and from gateway to worker. Both ends must speak the same.
pub const PROTOCOL_VERSION: u32 = 6;
