//! `peer.proto`: the torrents that a node holds, and the sources that it wants.

use swarm_types::{HeldTorrent, WantedSource};

use crate::{WireError, parse, wire};

impl TryFrom<wire::HeldTorrent> for HeldTorrent {
    type Error = WireError;

    fn try_from(wire: wire::HeldTorrent) -> Result<Self, WireError> {
        Self {
            info_hash: parse("info_hash", &wire.info_hash)?,
            name: wire.name,
            bytes: wire.bytes,
            pieces_held: wire.pieces_held,
            pieces: wire.pieces,
            source: Some(wire.source)
                .filter(|source| !source.is_empty())
                .map(|source| parse("source", &source))
                .transpose()?,
        }
        .validated()
        .map_err(|error| WireError::new(error.field(), error))
    }
}

impl From<HeldTorrent> for wire::HeldTorrent {
    fn from(torrent: HeldTorrent) -> Self {
        Self {
            info_hash: torrent.info_hash.to_string(),
            name: torrent.name,
            bytes: torrent.bytes,
            pieces: torrent.pieces,
            pieces_held: torrent.pieces_held,
            source: torrent.source.map(|source| source.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::WantedSource> for WantedSource {
    type Error = WireError;

    fn try_from(wire: wire::WantedSource) -> Result<Self, WireError> {
        Ok(Self { source: parse("source", &wire.source)?, is_fetching: wire.fetching })
    }
}

impl From<WantedSource> for wire::WantedSource {
    fn from(wanted: WantedSource) -> Self {
        Self { source: wanted.source.to_string(), fetching: wanted.is_fetching }
    }
}

#[cfg(test)]
mod tests {
    use swarm_types::fixture;

    use super::*;

    #[test]
    fn a_torrent_is_read_back_as_sent_and_refused_by_field_when_it_cannot_be() {
        let sent = wire::HeldTorrent::from(fixture::held_torrent(7));
        assert_eq!(HeldTorrent::try_from(sent.clone()), Ok(fixture::held_torrent(7)));
        let short = wire::HeldTorrent { info_hash: "07".into(), ..sent.clone() };
        let crowded = wire::HeldTorrent { pieces_held: 5, ..sent };
        let field = |wrong: wire::HeldTorrent| HeldTorrent::try_from(wrong).expect_err("refused").field;
        assert_eq!([field(short), field(crowded)], ["info_hash", "pieces_held"]);
        let hidden = wire::HeldTorrent { source: "hf:a\nb".into(), ..fixture::held_torrent(7).into() };
        assert_eq!(field(hidden), "source");
        let source = "hf:o/r/f.gguf".parse().ok();
        let known = HeldTorrent { source, ..fixture::held_torrent(7) };
        assert_eq!(HeldTorrent::try_from(wire::HeldTorrent::from(known.clone())), Ok(known));
    }

    #[test]
    fn a_wanted_source_is_read_back_as_sent_and_refused_when_it_is_none() {
        let wanted = WantedSource { source: "hf:o/r/f.gguf".parse().expect("a source"), is_fetching: true };
        assert_eq!(WantedSource::try_from(wire::WantedSource::from(wanted.clone())), Ok(wanted));
        let none = wire::WantedSource { source: String::new(), fetching: false };
        assert_eq!(WantedSource::try_from(none).expect_err("refused").field, "source");
    }
}
