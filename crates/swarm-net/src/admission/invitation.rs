//! What a newcomer is given: where to enter, whom to find there, and the secret, in one line.

use std::{fmt, str::FromStr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use swarm_types::NodeId;

use super::secret::Secret;
use crate::{
    entry_address::{EntryAddress, entry},
    peer,
    transport::address,
};

/// Version 1 of an invitation.
pub(crate) const PREFIX: &str = "lsw1:";

/// All that a node needs to enter a swarm: `lsw1:<multiaddr with /p2p/ID>:<secret>`. Whoever reads it is a member.
#[derive(Clone)]
pub struct Invitation {
    pub(crate) address: Multiaddr,
    /// Nobody else may answer there.
    pub(crate) peer: PeerId,
    pub(crate) secret: Secret,
}

impl Invitation {
    /// `address` is where the node of that id is reached: `host:port`, or a multiaddress.
    ///
    /// # Errors
    /// When that is no address of a node, or of another one.
    pub fn new(address: &str, node: &NodeId, secret: Secret) -> Result<Self, String> {
        let entry = entry(address).map_err(|error| error.to_string())?;
        let named = peer::peer_id(node).ok_or_else(|| format!("{node} is no peer id"))?;
        if entry.peer.is_some_and(|peer| peer != named) {
            return Err(format!("{address:?} is the address of another peer than {node}"));
        }
        let first = entry.addresses.into_iter().next().ok_or("no address")?;
        Ok(Self { address: first, peer: named, secret })
    }

    /// The line itself, with the secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}/p2p/{}:{}", self.address, self.peer, self.secret.reveal())
    }

    /// The node to enter by.
    pub(crate) fn entry(&self) -> EntryAddress {
        EntryAddress::at(self.address.clone(), Some(self.peer))
    }
}

impl FromStr for Invitation {
    type Err = String;

    /// # Errors
    /// When it is no invitation. The message does not repeat the secret.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = format!("an invitation reads {PREFIX}<multiaddress with /p2p/ID>:<secret>");
        let rest = text.trim().strip_prefix(PREFIX).ok_or_else(|| form.clone())?;
        let (place, secret) = rest.rsplit_once(':').ok_or_else(|| form.clone())?;
        let secret = secret.parse()?;
        let mut address: Multiaddr =
            place.parse().map_err(|error| format!("{form}; its address: {error}"))?;
        let Some(Protocol::P2p(peer)) = address.pop() else { return Err(form) };
        let address = address::dialable(&address).ok_or(form)?;
        Ok(Self { address, peer, secret })
    }
}

impl fmt::Debug for Invitation {
    /// Never shows the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation({}/p2p/{}, ..)", self.address, self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_one_line_that_reads_back() {
        let (node, secret) = (peer::node_id(&PeerId::random()), Secret::generate());
        for address in ["rendezvous.lan:4001", "[fd00::1]:4001", "/ip4/10.0.0.1/tcp/4001"] {
            let invitation = Invitation::new(address, &node, secret.clone()).unwrap();
            let line = invitation.reveal();
            assert!(line.starts_with("lsw1:/") && !line.contains('\n'));
            let read: Invitation = line.parse().unwrap();
            assert_eq!(read.reveal(), line);
            assert_eq!(read.secret.bytes(), secret.bytes());
            assert!(!format!("{read:?}").contains(&secret.reveal()));
        }
    }

    #[test]
    fn what_is_no_invitation_is_told_without_the_secret() {
        let (peer, secret) = (PeerId::random(), Secret::generate().reveal());
        let good = format!("lsw1:/ip4/10.0.0.1/tcp/1/p2p/{peer}:{secret}");
        assert!(good.parse::<Invitation>().is_ok());
        for wrong in [
            String::new(),
            good.replace("lsw1:", "lsw2:"),
            good.replace(&format!("/p2p/{peer}"), ""),
            good.replace("/tcp/1", ""),
            good[..good.len() - 1].to_owned(),
            format!("lsw1:{secret}"),
        ] {
            let error = wrong.parse::<Invitation>().unwrap_err();
            assert!(!error.contains(&secret[..16]), "{error}");
        }
        let node = crate::peer::node_id(&PeerId::random());
        let other = format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}");
        assert!(Invitation::new(&other, &node, Secret::generate()).is_err());
        assert!(Invitation::new("nowhere", &node, Secret::generate()).is_err());
    }
}
