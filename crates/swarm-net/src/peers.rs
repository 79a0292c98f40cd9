//! Who is there: whom to dial and by which entries, and what the swarm looks like from here.

pub(crate) mod dialer;
pub(crate) mod entry;
pub(crate) mod lines;
pub(crate) mod membership;
