//! Who is there: whom to dial and by which entries, to whom a life line is kept, who is watched, who may be gone, and
//! what the swarm looks like from here: what its workers serve and which torrents its nodes hold.

pub(crate) mod acquaintances;
pub(crate) mod address_book;
pub(crate) mod dialer;
pub(crate) mod doubts;
pub(crate) mod entry;
pub(crate) mod holdings;
pub(crate) mod life_lines;
pub(crate) mod membership;
pub(crate) mod missed;
pub(crate) mod news;
pub(crate) mod twins;
pub(crate) mod upgrades;
pub(crate) mod watched;
