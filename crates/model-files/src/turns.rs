//! Who has a hub's file, and who is the next to fetch all of it. Pure.

use std::collections::BTreeMap;

use model_hub::HubFile;
use swarm_net::{PeerTorrents, PeerWants};
use swarm_types::{ModelDigest, NodeId, SwarmStatus};

use crate::kept::hub_file;

/// A model that peers hold, with the commit of the file that it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Offered {
    pub(crate) info_hash: ModelDigest,
    pub(crate) name: String,
    pub(crate) file: HubFile,
}

/// Of what peers hold, the model that is this file. Where they hold several commits of it: that which workers compute
/// with, else that which most hold.
pub(crate) fn offered(file: &HubFile, held: &PeerTorrents, status: &SwarmStatus) -> Option<Offered> {
    let mut found: BTreeMap<[u8; 32], (usize, Offered)> = BTreeMap::new();
    for torrent in held.values().flatten() {
        let source = torrent.source.as_ref().and_then(hub_file);
        let Some(source) = source.filter(|source| source.commit().is_some() && file.is_met_by(source)) else {
            continue;
        };
        let (info_hash, name) = (torrent.info_hash, torrent.name.clone());
        let offered = Offered { info_hash, name, file: source };
        found.entry(info_hash.0).or_insert((0, offered)).0 += 1;
    }
    let served = |model: ModelDigest| {
        let mut replicas = status.shards.iter().flat_map(|shard| &shard.replicas);
        replicas.any(|replica| replica.model.digest == model)
    };
    let found = found.into_values().max_by_key(|(holders, offered)| (served(offered.info_hash), *holders));
    found.map(|(_, offered)| offered)
}

/// Who fetches a file, or comes before this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Before {
    /// It fetches the file.
    Fetches(NodeId),
    /// It wants the file too, and has a smaller id.
    Wants(NodeId),
}

impl Before {
    pub(crate) fn node(&self) -> &NodeId {
        let (Self::Fetches(node) | Self::Wants(node)) = self;
        node
    }
}

/// Whether anybody else wants the file, and may get it.
pub(crate) fn others_want(file: &HubFile, wants: &PeerWants) -> bool {
    let mut theirs = wants.values().flatten().filter_map(|wanted| hub_file(&wanted.source));
    theirs.any(|theirs| file.is_met_by(&theirs))
}

/// Whom to wait for. Nobody: it is this node's turn.
pub(crate) fn before(file: &HubFile, me: &NodeId, wants: &PeerWants) -> Option<Before> {
    let mut first = None;
    for (node, wanted) in wants {
        let mut same = wanted
            .iter()
            .filter(|wanted| hub_file(&wanted.source).is_some_and(|theirs| file.is_met_by(&theirs)));
        match same.next() {
            Some(wanted) if wanted.is_fetching => return Some(Before::Fetches(node.clone())),
            Some(_) if node < me && first.is_none() => first = Some(Before::Wants(node.clone())),
            _ => {}
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use swarm_types::{
        HeldTorrent, ReplicaState, Source, WantedSource,
        fixture::{held_torrent, replica, status},
    };

    use super::*;

    fn file(name: &str) -> HubFile {
        hub_file(&source(name)).expect(name)
    }

    fn source(name: &str) -> Source {
        name.parse().expect(name)
    }

    fn at(digit: &str) -> String {
        format!("hf:o/r/f.gguf@{}", digit.repeat(40))
    }

    fn held(by: &[(&str, u8, &str)]) -> PeerTorrents {
        let torrent = |number, name| HeldTorrent { source: Some(source(name)), ..held_torrent(number) };
        by.iter()
            .map(|(node, number, name)| (node.parse().expect("a node"), vec![torrent(*number, name)]))
            .collect()
    }

    #[test]
    fn what_the_swarm_has_of_a_file_decides_which_commit_it_is() {
        let nobody = status(vec![vec![]]);
        let (one, two) = (at("1"), at("2"));
        let all = held(&[("aa", 1, &one), ("bb", 2, &two), ("cc", 2, &two), ("dd", 3, "hf:o/r/g.gguf@v1")]);
        let chosen = |name: &str, status: &SwarmStatus| {
            offered(&file(name), &all, status)
                .map(|offered| (offered.info_hash.0[0], offered.file.to_string()))
        };
        assert_eq!(chosen("hf:o/r/f.gguf", &nobody), Some((2, two.clone())), "most hold it");
        assert_eq!(chosen(&one, &nobody), Some((1, one.clone())), "it was asked for");
        assert_eq!(chosen(&at("3"), &nobody), None);
        assert_eq!(chosen("hf:o/r/f.gguf@v1", &nobody), None, "which commit that is only the hub knows");
        assert_eq!(chosen("hf:o/r/g.gguf", &nobody), None, "no commit");
        let mut serves_one = replica("ee", ReplicaState::Loaded);
        serves_one.model.digest = held_torrent(1).info_hash;
        let served = status(vec![vec![serves_one]]);
        assert_eq!(chosen("hf:o/r/f.gguf", &served), Some((1, one)), "somebody computes with it");
    }

    #[test]
    fn the_smallest_id_of_those_that_want_a_file_is_next_unless_somebody_fetches_it() {
        let wants = |by: &[(&str, &str, bool)]| -> PeerWants {
            let wanted = |name, is_fetching| WantedSource { source: source(name), is_fetching };
            by.iter()
                .map(|(node, name, is)| (node.parse().expect("a node"), vec![wanted(name, *is)]))
                .collect()
        };
        let (any, one) = ("hf:o/r/f.gguf", at("1"));
        let next = |asked: &str, wants: &PeerWants| {
            before(&file(asked), &"mm".parse().expect("a node"), wants).map(|before| match before {
                Before::Fetches(node) => format!("{node} fetches"),
                Before::Wants(node) => format!("{node} wants"),
            })
        };
        assert_eq!(next(any, &wants(&[])), None);
        assert_eq!(next(any, &wants(&[("zz", any, false)])), None);
        assert_eq!(next(any, &wants(&[("bb", any, false), ("aa", any, false)])), Some("aa wants".into()));
        assert_eq!(next(any, &wants(&[("aa", any, false), ("zz", &one, true)])), Some("zz fetches".into()));
        assert_eq!(
            next(&one, &wants(&[("aa", any, true), ("bb", &at("2"), true)])),
            None,
            "not what is wanted here"
        );
        let another = wants(&[("aa", "hf:o/r/g.gguf", true)]);
        assert_eq!((next(any, &another), others_want(&file(any), &another)), (None, false), "another file");
        assert!(others_want(&file(any), &wants(&[("zz", &one, false)])));
    }
}
