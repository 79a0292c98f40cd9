//! Announcements as they travel: JSON that carries its own signature.
//!
//! The value is the announcement's JSON object with one more field at its end, `signature`: 128 lower-case
//! hexadecimal digits of an Ed25519 signature by the key that `peer_id` names (an Ed25519 peer id contains its
//! public key). Signed are the bytes
//!
//! ```text
//! "llama-swarm announcement 1" 0x00 cluster 0x00 object
//! ```
//!
//! where `object` is the text of the value without `,"signature":"…"`. It is the text that is signed, not its
//! meaning, so fields that an older node does not know do not break the signature.

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey},
};
use swarm_proto::WireError;
use swarm_types::{Announcement, AnnouncementError, MAX_ANNOUNCEMENT_BYTES, ModelDigest, SignedText, Source};

use crate::peer;

const DOMAIN: &[u8] = b"llama-swarm announcement 1\0";
/// A record that claims to live longer than this is refused: records live a minute, and clocks differ.
const MAX_LIFE_MS: u64 = 15 * 60 * 1000;

/// Why an announcement, or what a node says of a torrent, is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("announcement of {0} bytes is too large")]
    TooLarge(usize),
    #[error(transparent)]
    Malformed(#[from] AnnouncementError),
    #[error("torrent: {0}")]
    Torrent(WireError),
    #[error("not signed by the peer it names")]
    Signature,
    #[error("speaks of another peer than the one that says it")]
    ForeignPeer,
    #[error("lies under a key that is not its own")]
    WrongKey,
    #[error("cuts the model into {0} shards")]
    TotalShards(u32),
    #[error("is not valid any more")]
    Expired,
    #[error("claims to be valid for too long")]
    LivesTooLong,
    #[error("is older than the one known")]
    Outdated,
    #[error("was published by another peer")]
    Publisher,
    #[error("shard {0} is announced twice")]
    Twice(u32),
    #[error("torrent {0} is told twice")]
    TorrentTwice(ModelDigest),
    #[error("source: {0}")]
    Source(WireError),
    #[error("source {0} is told twice")]
    SourceTwice(Source),
    #[error("too many of them")]
    TooMany,
    #[error("comes from a peer that is not admitted")]
    NotAdmitted,
}

impl Refused {
    /// Every name that [`Self::cause`] gives, but for what is only older.
    pub(crate) const CAUSES: [&str; 12] = [
        "too_large",
        "malformed",
        "signature",
        "foreign_peer",
        "wrong_key",
        "total_shards",
        "expired",
        "lives_too_long",
        "publisher",
        "twice",
        "too_many",
        "not_admitted",
    ];

    /// Whether it is because the clocks of two nodes are far apart, when the announcer itself has sent it.
    pub(crate) fn tells_of_a_clock(&self) -> bool {
        matches!(self, Self::Expired | Self::LivesTooLong)
    }

    /// The cause's name in metrics.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::Malformed(_) | Self::Torrent(_) | Self::Source(_) => "malformed",
            Self::Signature => "signature",
            Self::ForeignPeer => "foreign_peer",
            Self::WrongKey => "wrong_key",
            Self::TotalShards(_) => "total_shards",
            Self::Expired => "expired",
            Self::LivesTooLong => "lives_too_long",
            Self::Outdated => "outdated",
            Self::Publisher => "publisher",
            Self::Twice(_) | Self::TorrentTwice(_) | Self::SourceTwice(_) => "twice",
            Self::TooMany => "too_many",
            Self::NotAdmitted => "not_admitted",
        }
    }
}

/// The announcement as JSON with its signature.
pub(crate) fn sign(key: &Keypair, cluster: &str, announcement: &Announcement) -> Vec<u8> {
    let object = announcement.to_json();
    let signature = key.sign(&signed_bytes(cluster, &object));
    let signature = signature.expect("signing with an Ed25519 key cannot fail");
    let signature = signature.try_into().expect("an Ed25519 signature has 64 bytes");
    SignedText { object, signature }.join()
}

/// Reads an announcement and checks that the peer it names has signed it for this cluster, and that the node
/// cuts the model into as many shards.
pub(crate) fn verify(cluster: &str, total_shards: u32, value: &[u8]) -> Result<Announcement, Refused> {
    if value.len() > MAX_ANNOUNCEMENT_BYTES {
        return Err(Refused::TooLarge(value.len()));
    }
    let announcement = Announcement::from_json(value)?;
    let text = SignedText::split(value).ok_or(Refused::Signature)?;
    let key = peer::peer_id(&announcement.peer_id).and_then(|peer| public_key(&peer));
    let signed = key.is_some_and(|key| key.verify(&signed_bytes(cluster, &text.object), &text.signature));
    if !signed {
        return Err(Refused::Signature);
    }
    match announcement.total_shards {
        total if total == total_shards => Ok(announcement),
        other => Err(Refused::TotalShards(other)),
    }
}

/// Whether a record that lay somewhere may still be believed.
pub(crate) fn check_life(announcement: &Announcement, now_ms: u64) -> Result<(), Refused> {
    if announcement.expires_at_ms <= now_ms {
        Err(Refused::Expired)
    } else if announcement.expires_at_ms - now_ms > MAX_LIFE_MS {
        Err(Refused::LivesTooLong)
    } else {
        Ok(())
    }
}

fn signed_bytes(cluster: &str, object: &[u8]) -> Vec<u8> {
    [DOMAIN, cluster.as_bytes(), b"\0", object].concat()
}

/// The key that an Ed25519 peer id consists of.
fn public_key(peer: &PeerId) -> Option<PublicKey> {
    // An identity multihash: code 0, the length, then the protobuf-encoded key.
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&[0])?.get(1..)?;
    PublicKey::try_decode_protobuf(key).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use swarm_types::{ShardId, fixture};

    use super::*;

    /// An announcement by `key` of a shard of eight.
    pub(crate) fn announcement(key: &Keypair, shard: u32, sequence: u64) -> Announcement {
        let peer_id = peer::node_id(&key.public().to_peer_id());
        Announcement { peer_id, shard_id: ShardId(shard), sequence, ..fixture::announcement() }
    }

    #[test]
    fn a_signed_announcement_is_readable_json_and_verifies() {
        let key = Keypair::generate_ed25519();
        let ours = announcement(&key, 3, 1);
        let value = sign(&key, "c", &ours);
        let json: serde_json::Value = serde_json::from_slice(&value).unwrap();
        assert_eq!((json["shard_id"].as_u64(), json["shard_loaded"].as_bool()), (Some(3), Some(true)));
        assert_eq!(json["signature"].as_str().map(str::len), Some(128));
        assert_eq!(verify("c", 8, &value), Ok(ours));
    }

    #[test]
    fn what_its_peer_did_not_sign_for_this_swarm_is_refused() {
        let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let ours = announcement(&key, 3, 1);
        let value = sign(&key, "c", &ours);
        assert_eq!(verify("another", 8, &value), Err(Refused::Signature));
        assert_eq!(verify("c", 4, &value), Err(Refused::TotalShards(8)));
        assert_eq!(verify("c", 8, &sign(&other, "c", &ours)), Err(Refused::Signature), "forged");
        assert_eq!(verify("c", 8, &ours.to_json()), Err(Refused::Signature), "unsigned");
        assert_eq!(verify("c", 8, &vec![b' '; 1 << 20]), Err(Refused::TooLarge(1 << 20)));
        assert!(matches!(verify("c", 8, b"not json"), Err(Refused::Malformed(_))));
        let changed = String::from_utf8(value).unwrap().replace("\"shard_id\":3", "\"shard_id\":4");
        assert_eq!(verify("c", 8, changed.as_bytes()), Err(Refused::Signature));
    }

    #[test]
    fn a_record_is_believed_only_for_its_short_life() {
        let key = Keypair::generate_ed25519();
        let record = announcement(&key, 0, 1);
        assert_eq!(check_life(&record, 0), Ok(()));
        assert_eq!(check_life(&record, 60_000), Err(Refused::Expired));
        let immortal = Announcement { expires_at_ms: u64::MAX, ..record };
        assert_eq!(check_life(&immortal, 0), Err(Refused::LivesTooLong));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_refused_and_never_panics(at in 0..2000usize, flip in 1..=255u8) {
            let key = Keypair::generate_ed25519();
            let mut value = sign(&key, "c", &announcement(&key, 3, 1));
            let at = at % value.len();
            value[at] ^= flip;
            prop_assert!(verify("c", 8, &value).is_err());
        }
    }
}
