//! What a worker says of a shard.

use swarm_types::{Announcement, SignedText};

/// An announcement that is taken is written and read back the same. Its signature is found in one place, or not at all.
pub fn check(bytes: &[u8]) {
    if let Some(text) = SignedText::split(bytes) {
        assert_eq!(text.join(), bytes);
    }
    if let Ok(announcement) = Announcement::from_json(bytes) {
        let again = Announcement::from_json(&announcement.to_json());
        assert_eq!(again.as_ref(), Ok(&announcement));
    }
}

/// One as a worker sends it, one of an older worker, one of a worker that fetches its model, and one without its
/// signature.
pub fn seeds() -> Vec<Vec<u8>> {
    let digest = "07".repeat(32);
    let now = format!(
        r#"{{"peer_id":"12D3KooWGzBvZVkz","shard_id":3,"shard_loaded":true,
            "addresses":["/ip4/10.0.0.7/udp/4001/quic-v1"],
            "capabilities":{{"layers":{{"start":12,"end":16}},"total_shards":8,"model_digest":"{digest}",
                "model_name":"tiny","precision":"exact","device":"cpu","memory_bytes":1200000000,
                "tokens_per_second":210.5,"version":"0.1.0","grpc_address":"10.0.0.7:50051",
                "loaded_percent":100,"active_sessions":2,"round_trips_us":{{"12D3KooWGzBvZVkz":250}}}},
            "sequence":1800000000000,"expires_at_ms":1800000060000}}"#
    );
    let round_trips = r#","round_trips_us":{"12D3KooWGzBvZVkz":250}"#;
    let older = now.replace("loaded_percent", "load_percent").replace(round_trips, "");
    let fetching = now.replace(round_trips, r#","fetching":{"peers":3,"bytes_per_second":41000000}"#);
    let signed = |object: &str| SignedText { object: object.into(), signature: [0xa5; 64] }.join();
    vec![signed(&now), signed(&older), signed(&fetching), now.into_bytes()]
}
