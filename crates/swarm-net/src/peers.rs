//! Who is there: whom to dial and by which entries, to whom a life line is kept, and what the swarm looks like from
//! here: what its workers serve and which torrents its nodes hold.

pub(crate) mod acquaintances;
pub(crate) mod address_book;
pub(crate) mod dialer;
pub(crate) mod entry;
pub(crate) mod holdings;
pub(crate) mod life_lines;
pub(crate) mod lines;
pub(crate) mod membership;
