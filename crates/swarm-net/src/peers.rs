//! Who is there: whom to dial and by which entries, and what the swarm looks like from here: what its workers
//! serve and which torrents its nodes hold.

pub(crate) mod acquaintances;
pub(crate) mod address_book;
pub(crate) mod dialer;
pub(crate) mod entry;
pub(crate) mod holdings;
pub(crate) mod lines;
pub(crate) mod membership;
