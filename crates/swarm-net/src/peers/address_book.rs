//! Where members were reached, kept in a file beside the identity: by it a node that starts again finds the swarm also
//! while all those to enter by are away.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use libp2p::{Multiaddr, PeerId};

use crate::transport::address;

/// Members that are kept. To find one of them is enough.
const MOST_PEERS: usize = 64;
/// Addresses of each.
const MOST_ADDRESSES: usize = 8;
/// A file that was written here is far smaller.
const MOST_BYTES: u64 = 256 << 10;

/// Members and their addresses.
#[derive(Debug)]
pub(crate) struct AddressBook {
    path: PathBuf,
    peers: BTreeMap<PeerId, Vec<Multiaddr>>,
    changed: bool,
}

impl AddressBook {
    /// The one beside an identity's file. One that cannot be read is an empty one: the swarm is found without it too.
    pub(crate) fn beside(identity: &Path) -> Self {
        let mut path = identity.as_os_str().to_owned();
        path.push(".peers");
        let path = PathBuf::from(path);
        let peers = match read(&path) {
            Ok(text) => text.lines().filter_map(entry).take(MOST_PEERS).collect(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "the peers of last time cannot be read");
                }
                BTreeMap::new()
            }
        };
        Self { path, peers, changed: false }
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = (&PeerId, &[Multiaddr])> {
        self.peers.iter().map(|(peer, addresses)| (peer, addresses.as_slice()))
    }

    /// These are members now, and where they are. Those of before stay as long as there is room.
    pub(crate) fn note(&mut self, members: &BTreeMap<PeerId, Vec<Multiaddr>>) {
        for (peer, addresses) in members.iter().take(MOST_PEERS) {
            let addresses: Vec<_> = addresses.iter().take(MOST_ADDRESSES).cloned().collect();
            if addresses.is_empty() || self.peers.get(peer) == Some(&addresses) {
                continue;
            }
            if self.peers.len() >= MOST_PEERS && !self.peers.contains_key(peer) {
                let Some(gone) = self.peers.keys().find(|peer| !members.contains_key(peer)).copied() else {
                    return;
                };
                self.peers.remove(&gone);
            }
            self.peers.insert(*peer, addresses);
            self.changed = true;
        }
    }

    /// What is to be written, and where, if anything has changed since.
    pub(crate) fn unwritten(&mut self) -> Option<(PathBuf, String)> {
        std::mem::take(&mut self.changed).then(|| {
            let line = |(peer, addresses): (&PeerId, &Vec<Multiaddr>)| {
                let addresses = addresses.iter().map(|address| format!(" {address}"));
                format!("{peer}{}\n", addresses.collect::<String>())
            };
            (self.path.clone(), self.peers.iter().map(line).collect())
        })
    }
}

/// Puts a book in place of the one before. For a thread that may block.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, text).and_then(|()| fs::rename(&part, path))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// A line; none that makes no sense, as people may write here too.
fn entry(line: &str) -> Option<(PeerId, Vec<Multiaddr>)> {
    let mut words = line.split_whitespace();
    let peer = words.next()?.parse().ok()?;
    let addresses: Vec<Multiaddr> = words.filter_map(|word| word.parse().ok()).take(MOST_ADDRESSES).collect();
    let addresses = address::dialable_all(&addresses);
    (!addresses.is_empty()).then_some((peer, addresses))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: usize) -> Vec<Multiaddr> {
        vec![format!("/ip4/10.0.0.1/udp/{port}/quic-v1").parse().unwrap()]
    }

    fn kept(book: &AddressBook) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        book.peers().map(|(peer, addresses)| (*peer, addresses.to_vec())).collect()
    }

    #[test]
    fn a_node_that_starts_again_knows_where_members_were() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("identity");
        let mut book = AddressBook::beside(&identity);
        assert!(book.peers().next().is_none() && book.unwritten().is_none());
        let (first, second) = (PeerId::random(), PeerId::random());
        book.note(&[(first, at(1)), (second, vec![])].into());
        let (path, text) = book.unwritten().expect("news");
        write(&path, &text).unwrap();
        book.note(&[(first, at(1))].into());
        assert!(book.unwritten().is_none(), "no news");
        assert_eq!(kept(&AddressBook::beside(&identity)), [(first, at(1))].into());
        book.note(&[(second, at(2))].into());
        assert_eq!(kept(&book), [(first, at(1)), (second, at(2))].into(), "who left may come back");
    }

    #[test]
    fn a_book_is_bounded_and_lines_without_sense_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("identity");
        let peer = PeerId::random();
        let text = format!(
            "junk\n{peer}\n{peer} nowhere /ip4/0.0.0.0/tcp/1\n{peer} /ip4/10.0.0.1/udp/7/quic-v1 x\n"
        );
        fs::write(folder.path().join("identity.peers"), text).unwrap();
        let mut book = AddressBook::beside(&identity);
        assert_eq!(kept(&book), [(peer, at(7))].into());
        let crowd = || (1..=MOST_PEERS).map(|port| (PeerId::random(), at(port))).collect::<BTreeMap<_, _>>();
        let (before, now) = (crowd(), crowd());
        book.note(&before);
        book.note(&now);
        assert_eq!(kept(&book), now, "those who are there come first");
        fs::write(folder.path().join("identity.peers"), [0xff, 0xfe]).unwrap();
        assert!(AddressBook::beside(&identity).peers().next().is_none());
    }
}
