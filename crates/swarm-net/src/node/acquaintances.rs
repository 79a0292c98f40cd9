//! Members of last time, whom a node looks for when it starts, and those of now, whom it notes for the next time.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Node;
use crate::{
    Identity,
    peers::address_book::{self, AddressBook},
};

/// Who was there last time and cannot be reached for so long is somewhere else.
const LOOK_FOR: Duration = Duration::from_secs(2 * 60);

/// Those whom a node knows from last time. A node without a file for its key has none.
#[derive(Debug)]
pub(super) struct Acquaintances {
    book: Option<AddressBook>,
    writing: Option<JoinHandle<()>>,
}

impl Acquaintances {
    pub(super) fn of(identity: &Identity) -> Self {
        Self { book: identity.file().map(AddressBook::beside), writing: None }
    }
}

impl Node {
    /// Dials those of last time.
    pub(super) fn look_for_acquaintances(&mut self, now: Instant) {
        for (peer, addresses) in self.acquaintances.book.iter().flat_map(AddressBook::peers) {
            self.dialer.learn(*peer, addresses, LOOK_FOR, now);
        }
    }

    /// Notes those of now.
    pub(super) fn note_members(&mut self) {
        let Acquaintances { book: Some(book), writing } = &mut self.acquaintances else { return };
        let members = self.peers.iter().filter(|(_, known)| known.member.is_some());
        book.note(&members.map(|(peer, _)| (*peer, self.dialer.addresses(peer))).collect());
        if writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        let Some((path, text)) = book.unwritten() else { return };
        *writing = Some(self.services.spawn_blocking(move || {
            if let Err(error) = address_book::write(&path, &text) {
                tracing::debug!(path = %path.display(), %error, "the members of now cannot be noted");
            }
        }));
    }
}
