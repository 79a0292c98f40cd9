//! The proof that two nodes give each other that they hold the swarm's secret: `/llama-swarm/{cluster}/admit/1`.
//!
//! The transport has proven who is at either end. The dialer opens the connection's first stream and sends its
//! *hello*, a nonce and its role; the listener answers with its own hello and its *proof*; the dialer sends its proof,
//! and the listener one byte that says whether it takes it. A proof is HMAC-SHA256, under a key made of secret and
//! cluster, over a label, which side gives it, both peer ids, both nonces and both roles. So it is good for this
//! connection and this side only: nothing can be passed on to another peer, given back, or used again; and the secret
//! itself is never sent.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{PeerId, StreamProtocol};
use multistream_select::{NegotiationError, Version, dialer_select_proto, listener_select_proto};

use super::{
    keyring::{Key, Keys},
    secret::random,
};
use crate::{NetError, Role};

/// Changes with the form of messages and proofs.
const LABEL: &[u8] = b"llama-swarm admit 1";
const NONCE: usize = 32;
const PROOF: usize = 32;
const HELLO: usize = NONCE + 1;
const TAKEN: u8 = 1;
const REFUSED: u8 = 0;
/// For whoever is refused to read that, before the connection ends.
const HEAR_WITHIN: Duration = Duration::from_millis(500);

/// Why a peer was not admitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAdmitted {
    #[error("belongs to another swarm, or runs another version: check --cluster")]
    Foreign,
    #[error("does not prove this swarm's secret: check --secret-file on both nodes")]
    WrongSecret,
    #[error("does not take this node's secret: check --secret-file on both nodes")]
    Refused,
    #[error("left before it was admitted: if it belongs here, check its --secret-file")]
    Left,
    #[error("was not admitted in time")]
    Late,
    #[error("too many wait to be admitted")]
    Crowded,
    #[error("does not keep to the protocol of admission: {0}")]
    Protocol(&'static str),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
}

impl NotAdmitted {
    /// Every name that [`Self::cause`] gives.
    pub(crate) const CAUSES: [&str; 8] =
        ["foreign_swarm", "wrong_secret", "secret_refused", "left", "late", "crowded", "protocol", "broken"];

    /// By what it is counted.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::Foreign => "foreign_swarm",
            Self::WrongSecret => "wrong_secret",
            Self::Refused => "secret_refused",
            Self::Left => "left",
            Self::Late => "late",
            Self::Crowded => "crowded",
            Self::Protocol(_) => "protocol",
            Self::Broken(_) => "broken",
        }
    }
}

impl From<NegotiationError> for NotAdmitted {
    fn from(error: NegotiationError) -> Self {
        match error {
            NegotiationError::Failed => Self::Foreign,
            NegotiationError::ProtocolError(error) => io::Error::from(error).into(),
        }
    }
}

impl From<io::Error> for NotAdmitted {
    fn from(error: io::Error) -> Self {
        let negotiation = error.get_ref().and_then(|inner| inner.downcast_ref::<NegotiationError>());
        match negotiation {
            Some(NegotiationError::Failed) => Self::Foreign,
            _ => Self::Broken(error),
        }
    }
}

/// The protocol's name.
pub(crate) fn protocol(cluster: &str) -> Result<StreamProtocol, NetError> {
    let name = format!("/llama-swarm/{cluster}/admit/1");
    StreamProtocol::try_from_owned(name).map_err(|error| NetError::Start(error.to_string()))
}

/// This node, for one exchange.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) peer: PeerId,
    pub(crate) role: Role,
    pub(crate) protocol: StreamProtocol,
    pub(crate) keys: Keys,
}

/// What the peer has proven.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) role: Role,
    pub(crate) key: Key,
}

/// The dialer's side, on the first stream that it opened to `peer`.
pub(crate) async fn dial<T>(io: T, own: &Own, peer: PeerId) -> Result<Proof, NotAdmitted>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (_, mut io) = dialer_select_proto(io, [own.protocol.clone()], Version::V1Lazy).await?;
    let hello = hello(own.role);
    io.write_all(&hello).await?;
    io.flush().await?;
    let mut answer = [0; HELLO + PROOF];
    io.read_exact(&mut answer).await?;
    let (theirs, proof) = answer.split_at(HELLO);
    let round = Round { dialer: own.peer, listener: peer, dialers: &hello, listeners: theirs };
    let key = round.verify(Side::Listener, proof, &own.keys).ok_or(NotAdmitted::WrongSecret)?;
    io.write_all(&round.prove(Side::Dialer, &own.keys)).await?;
    io.flush().await?;
    let mut verdict = [REFUSED];
    io.read_exact(&mut verdict).await?;
    if verdict != [TAKEN] {
        return Err(NotAdmitted::Refused);
    }
    Ok(Proof { role: role(theirs)?, key })
}

/// The listener's side, on the first stream that `peer` opened.
pub(crate) async fn listen<T>(io: T, own: &Own, peer: PeerId) -> Result<Proof, NotAdmitted>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (_, mut io) = listener_select_proto(io, [own.protocol.clone()]).await.map_err(unproposed)?;
    let mut theirs = [0; HELLO];
    io.read_exact(&mut theirs).await?;
    let hello = hello(own.role);
    let round = Round { dialer: peer, listener: own.peer, dialers: &theirs, listeners: &hello };
    io.write_all(&[&hello[..], &round.prove(Side::Listener, &own.keys)].concat()).await?;
    io.flush().await?;
    let mut proof = [0; PROOF];
    // Whoever cannot verify this node's proof goes without giving its own.
    io.read_exact(&mut proof).await.map_err(|_| NotAdmitted::Left)?;
    let Some(key) = round.verify(Side::Dialer, &proof, &own.keys) else {
        refuse(io).await;
        return Err(NotAdmitted::WrongSecret);
    };
    let role = role(&theirs)?;
    io.write_all(&[TAKEN]).await?;
    io.close().await?;
    Ok(Proof { role, key })
}

/// A dialer that proposes nothing else than what is not spoken here leaves.
fn unproposed(error: NegotiationError) -> NotAdmitted {
    match error {
        NegotiationError::ProtocolError(_) | NegotiationError::Failed => NotAdmitted::Foreign,
    }
}

async fn refuse<T: AsyncRead + AsyncWrite + Unpin>(mut io: T) {
    let told = async {
        io.write_all(&[REFUSED]).await?;
        io.close().await?;
        io.read(&mut [0]).await
    };
    // It has heard it, or is gone.
    let _ = tokio::time::timeout(HEAR_WITHIN, told).await;
}

fn hello(role: Role) -> [u8; HELLO] {
    let mut hello = [0; HELLO];
    hello[..NONCE].copy_from_slice(&random::<NONCE>());
    hello[NONCE] = role.code();
    hello
}

fn role(hello: &[u8]) -> Result<Role, NotAdmitted> {
    hello.last().and_then(|code| Role::coded(*code)).ok_or(NotAdmitted::Protocol("its role is unknown here"))
}

#[derive(Clone, Copy)]
enum Side {
    Dialer,
    Listener,
}

/// What proofs of one exchange are about.
struct Round<'a> {
    dialer: PeerId,
    listener: PeerId,
    dialers: &'a [u8],
    listeners: &'a [u8],
}

impl Round<'_> {
    /// The first key proves.
    fn prove(&self, side: Side, keys: &Keys) -> [u8; PROOF] {
        keys[0].tag(&self.message(side))
    }

    /// All keys are accepted.
    fn verify(&self, side: Side, proof: &[u8], keys: &Keys) -> Option<Key> {
        let (message, proof) = (self.message(side), proof.try_into().ok()?);
        keys.iter().find(|key| key.verifies(&message, proof)).cloned()
    }

    /// Each part has a length of its own or a fixed one, so no two exchanges have one message.
    fn message(&self, side: Side) -> Vec<u8> {
        let mut message = [LABEL, &[0, side as u8]].concat();
        for peer in [self.dialer, self.listener] {
            let id = peer.to_bytes();
            message.push(u8::try_from(id.len()).expect("a peer id is shorter than 256 bytes"));
            message.extend(id);
        }
        message.extend_from_slice(self.dialers);
        message.extend_from_slice(self.listeners);
        message
    }
}

#[cfg(test)]
mod tests;
