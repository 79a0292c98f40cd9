//! Members of last time, whom a node looks for when it starts, and those of now, who are noted for the next time.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, PeerId};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    Identity,
    peers::address_book::{self, AddressBook},
};

/// Those whom a node knows from last time. A node without a file for its key has none.
#[derive(Debug)]
pub(crate) struct Acquaintances {
    book: Option<AddressBook>,
    writing: Option<JoinHandle<()>>,
}

impl Acquaintances {
    pub(crate) fn of(identity: &Identity) -> Self {
        Self { book: identity.file().map(AddressBook::beside), writing: None }
    }

    /// Those of last time.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&PeerId, &[Multiaddr])> {
        self.book.iter().flat_map(AddressBook::peers)
    }

    /// Whether anything is noted.
    pub(crate) fn are_kept(&self) -> bool {
        self.book.is_some()
    }

    /// Notes those of now, on a thread of the runtime that may block.
    pub(crate) fn note(&mut self, members: &BTreeMap<PeerId, Vec<Multiaddr>>, runtime: &Handle) {
        let Some(book) = &mut self.book else { return };
        book.note(members);
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        let Some((path, text)) = book.unwritten() else { return };
        self.writing = Some(runtime.spawn_blocking(move || {
            if let Err(error) = address_book::write(&path, &text) {
                tracing::debug!(path = %path.display(), %error, "the members of now cannot be noted");
            }
        }));
    }
}
