//! `peer.proto`: the torrents that a node holds.

use swarm_types::HeldTorrent;

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
        }
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
    }
}
