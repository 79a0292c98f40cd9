//! How a worker gets its model's file from other nodes, while it does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Peers that a worker fetches from at once. It talks with eight; more than this nobody does.
const MAX_PEERS: u32 = 1024;
/// A TiB a second, which no network has. It is also far below what a number of JavaScript tells to the last digit.
const MAX_BYTES_PER_SECOND: u64 = 1 << 40;

/// How a worker gets its model's file from other nodes, at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Fetching {
    /// Peers that it talks with.
    pub peers: u32,
    /// Bytes of the file that came from them in the last seconds, in one second.
    pub bytes_per_second: u64,
}

impl Fetching {
    /// The same within the bounds that others take.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            peers: self.peers.min(MAX_PEERS),
            bytes_per_second: self.bytes_per_second.min(MAX_BYTES_PER_SECOND),
        }
    }

    /// The field that cannot be as it is told, if there is one.
    #[must_use]
    pub fn wrong_field(&self) -> Option<&'static str> {
        let fields = [
            ("fetching.peers", self.peers <= MAX_PEERS),
            ("fetching.bytes_per_second", self.bytes_per_second <= MAX_BYTES_PER_SECOND),
        ];
        fields.into_iter().find(|(_, right)| !right).map(|(field, _)| field)
    }
}

impl fmt::Display for Fetching {
    /// `3 peers · 41 MB/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes_per_second as f64 / 1e6;
        let (s, digits) = (if self.peers == 1 { "" } else { "s" }, usize::from(megabytes < 9.95));
        write!(f, "{} peer{s} · {megabytes:.digits$} MB/s", self.peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_is_told_in_a_few_words() {
        let told = |peers, bytes_per_second| Fetching { peers, bytes_per_second }.to_string();
        assert_eq!(told(3, 41_000_000), "3 peers · 41 MB/s");
        assert_eq!(told(1, 512_000), "1 peer · 0.5 MB/s");
        assert_eq!(told(0, 0), "0 peers · 0.0 MB/s");
        assert_eq!(
            (told(2, 9_940_000), told(2, 9_960_000)),
            ("2 peers · 9.9 MB/s".into(), "2 peers · 10 MB/s".into())
        );
    }

    #[test]
    fn what_no_network_does_is_wrong_by_field() {
        let wrong = |peers, bytes_per_second| Fetching { peers, bytes_per_second }.wrong_field();
        assert_eq!(wrong(MAX_PEERS, MAX_BYTES_PER_SECOND), None);
        assert_eq!(wrong(MAX_PEERS + 1, 0), Some("fetching.peers"));
        assert_eq!(wrong(0, u64::MAX), Some("fetching.bytes_per_second"));
        assert_eq!(Fetching { peers: u32::MAX, bytes_per_second: u64::MAX }.bounded().wrong_field(), None);
    }
}
