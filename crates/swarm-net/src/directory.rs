//! What nodes tell about themselves where all can read it: signed announcements and held torrents in the DHT, and
//! registrations at rendezvous servers.

pub(crate) mod announcer;
pub(crate) mod holder;
pub(crate) mod lookups;
pub(crate) mod publisher;
pub(crate) mod queries;
pub(crate) mod records;
pub(crate) mod registrations;
pub(crate) mod signed;
